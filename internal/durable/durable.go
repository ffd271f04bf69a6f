// Package durable writes files that are there as a whole or not at all, and stay.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile makes data durable under name, with the given mode. On success this happened, in order:
//
//	create name.tmp        what an earlier try left there is overwritten
//	write, fsync, close    the octets are on disk
//	rename name.tmp name   the name is in the directory
//	fsync the directory    so is that
//
// After an error the file is what it was, or the new one; it is never half of either.
func WriteFile(name string, data []byte, mode fs.FileMode) error {
	tmp := name + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes the names in a directory durable.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

package control

import (
	"context"
	"errors"
	"fmt"
)

// A Code is the kind of an error, for programs: errors.Is(err, control.NotFound).
type Code string

// The codes.
const (
	NotFound    Code = "not_found"
	Exists      Code = "exists"
	Invalid     Code = "invalid"      // what was asked for makes no sense
	Refused     Code = "refused"      // it makes sense, but something stands against it
	OverQuota   Code = "over_quota"   // of an account
	Full        Code = "full"         // the disk
	Failed      Code = "store_failed" // the store refuses writes until it is reopened
	Damaged     Code = "damaged"      // what the disk holds is not what was written
	Cancelled   Code = "cancelled"
	Unavailable Code = "unavailable" // the server went away, or is not for this user
	Internal    Code = "internal"    // anything else
)

// Error makes a Code a target of errors.Is.
func (c Code) Error() string { return string(c) }

// Error is what went wrong, for people and for programs.
type Error struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"` // what to do, when that is known
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// Is reports whether target is the error's code.
func (e *Error) Is(target error) bool { return target == e.Code }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// WithHint returns e with a hint.
func (e *Error) WithHint(format string, args ...any) *Error {
	return &Error{e.Code, e.Text, fmt.Sprintf(format, args...)}
}

// asError turns any error into one that can travel.
func asError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{e.Code, err.Error(), e.Hint}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &Error{Code: Cancelled, Text: err.Error()}
	}
	return &Error{Code: Internal, Text: err.Error()}
}

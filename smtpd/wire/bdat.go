package wire

import (
	"strconv"
	"strings"
)

// ErrUncounted is the error of a BDAT whose size is not known. What follows cannot be told from commands: the session
// says so and closes.
var ErrUncounted error = refused("the size of the chunk is not a number")

// maxDigits are those of chunk-size in RFC 3030, 4.2.
const maxDigits = 20

// ParseBDAT reads the argument of BDAT: a size in octets, and LAST in any case behind the last chunk. The error is a
// *Reply: ErrUncounted, with a size of 0, or one behind which size octets follow that must be read.
func ParseBDAT(arg string) (size int64, last bool, err error) {
	number, word, _ := strings.Cut(arg, " ")
	if len(number) > maxDigits || strings.Trim(number, "0123456789") != "" {
		return 0, false, ErrUncounted
	}
	if size, err = strconv.ParseInt(number, 10, 64); err != nil {
		return 0, false, ErrUncounted
	}
	if word = strings.Trim(word, " "); strings.EqualFold(word, "LAST") {
		return size, true, nil
	}
	if word != "" {
		return size, false, refused("what follows the size can only be LAST")
	}
	return size, false, nil
}

package control

import (
	"context"
	"fmt"
	"os/user"
	"strconv"
)

type callerKey struct{}

// WithCaller returns a context that says which system user gives the order.
func WithCaller(ctx context.Context, uid int) context.Context {
	return context.WithValue(ctx, callerKey{}, uid)
}

// Caller names who gives the order, for the trace: "root", or "uid 1000" for a user
// without a name.
func Caller(ctx context.Context) string {
	uid, ok := ctx.Value(callerKey{}).(int)
	if !ok {
		return "the server"
	}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", uid)
}

package smtpd

import (
	"testing"

	"go.uber.org/goleak"
)

// No test leaves a goroutine behind: every connection's engine ends with it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

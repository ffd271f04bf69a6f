package tlsrpt

import (
	"net/netip"
	"time"
)

// Result is how one session with a mail host began, or why there was none: one success or one failure in the report to
// the recipients' domain. A session counts once for each policy that applied to it.
type Result struct {
	Time   time.Time
	Domain string     // of the recipients, in A-labels: whom the report goes to
	Policy Policy     // what was applied
	MX     string     // the mail host; empty when none was reached
	IP     netip.Addr // its address; zero when none was reached
	Local  netip.Addr // our address of the connection; zero when there was none

	Failure Failure // empty is success
	Reason  string  // what went wrong, for a person to read: an error's words
}

// PolicyType is a policy's kind (RFC 8460, 4.4).
type PolicyType string

// The kinds of policies.
const (
	STS      PolicyType = "sts"
	TLSA     PolicyType = "tlsa"
	NoPolicy PolicyType = "no-policy-found"
)

// Policy is what a domain has published about TLS, as it was when it was applied.
type Policy struct {
	Type    PolicyType
	Domain  string   // for which it is published: of TLSA the base domain; empty is the recipients'
	Strings []string // the lines of the MTA-STS policy, or the TLSA records in presentation form
	MX      []string // the mx patterns of an MTA-STS policy
}

// Failure is a result type (RFC 8460, 4.3).
type Failure string

// The failures that RFC 8460 knows.
const (
	StartTLSNotSupported    Failure = "starttls-not-supported"
	CertificateHostMismatch Failure = "certificate-host-mismatch"
	CertificateExpired      Failure = "certificate-expired"
	CertificateNotTrusted   Failure = "certificate-not-trusted"
	ValidationFailure       Failure = "validation-failure" // any other failure of the handshake or the certificate
	TLSAInvalid             Failure = "tlsa-invalid"
	DNSSECInvalid           Failure = "dnssec-invalid"
	DANERequired            Failure = "dane-required"
	STSPolicyFetchError     Failure = "sts-policy-fetch-error"
	STSPolicyInvalid        Failure = "sts-policy-invalid"
	STSWebPKIInvalid        Failure = "sts-webpki-invalid"
)

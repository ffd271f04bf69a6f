// Package tlsrpt is SMTP TLS reporting (RFC 8460): what the sessions of a day showed of a domain's TLS, counted and
// told to the domain when it asks for that.
package tlsrpt

package tlspolicy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postroad/internal/dns"
	"postroad/internal/tlsrpt"
)

const (
	fetchTime     = time.Minute      // of one policy, from the first look-up to the last octet (RFC 8461, 3.3)
	dialTime      = 10 * time.Second // to connect to one address
	maxPolicyHead = 16 << 10         // octets of the response's header
	maxPolicyHost = 4                // addresses of a policy host that are tried
)

// errPrivate means that a policy host is none that a stranger may have us ask.
var errPrivate = errors.New("leads to a private address only")

// fetchFailure is the type of failure under which TLS reports count a fetch.
func fetchFailure(err error) tlsrpt.Failure {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return tlsrpt.STSWebPKIInvalid
	}
	if errors.Is(err, errPolicy) {
		return tlsrpt.STSPolicyInvalid
	}
	return tlsrpt.STSPolicyFetchError
}

// download asks a domain's policy host (RFC 8461, 3.3). No redirect is followed, nothing is taken from a cache.
func (p *Policies) download(ctx context.Context, domain string) (*STS, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	url := "https://" + net.JoinHostPort("mta-sts."+domain, strconv.Itoa(p.cfg.HTTPSPort)) + "/.well-known/mta-sts.txt"
	url = strings.Replace(url, ":443/", "/", 1)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", url, err)
	}
	req.Header.Set("User-Agent", "postroad")
	resp, err := p.client().Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch the policy: %w", err)
	}
	defer resp.Body.Close()
	file, err := read(resp)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", url, err)
	}
	return ParsePolicy(file)
}

// client makes one connection, for one request.
func (p *Policies) client() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            p.dialHost,
			TLSClientConfig:        &tls.Config{RootCAs: p.cfg.RootCAs, MinVersion: tls.VersionTLS12, Time: p.cfg.Now},
			DisableKeepAlives:      true,
			DisableCompression:     true, // the bound is on what is read
			MaxResponseHeaderBytes: maxPolicyHead,
		},
	}
}

// read returns the file in a response, if it is one of the right kind and size.
func read(resp *http.Response) (string, error) {
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the policy host says %d", resp.StatusCode)
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "text/plain" {
		return "", fmt.Errorf("%w: its type is not text/plain", errPolicy)
	}
	file, err := io.ReadAll(io.LimitReader(resp.Body, maxPolicy+1))
	if err == nil && len(file) > maxPolicy {
		err = fmt.Errorf("%w: it is larger than %d octets", errPolicy, maxPolicy)
	}
	return string(file), err
}

// dialHost connects to a policy host. The addresses that are checked are those that are dialled.
func (p *Policies) dialHost(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	answer, err := p.cfg.Resolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("%s: %w", host, dns.ErrNotFound)
	for i, ip := range p.allowed(answer.Records, &err) {
		if i == maxPolicyHost {
			break
		}
		var conn net.Conn
		if conn, err = p.dial(ctx, network, net.JoinHostPort(ip.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

func (p *Policies) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	return p.cfg.Dial(ctx, network, addr)
}

// allowed are the addresses that may be asked; when there is none of many, why says so.
func (p *Policies) allowed(ips []netip.Addr, why *error) []netip.Addr {
	if p.cfg.AllowPrivate {
		return ips
	}
	var public []netip.Addr
	for _, ip := range ips {
		if dns.Public(ip) {
			public = append(public, ip)
		}
	}
	if len(public) == 0 && len(ips) > 0 {
		*why = errPrivate
	}
	return public
}

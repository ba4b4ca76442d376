package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/micro/sidecar/internal/certs"
)

// acmeSetting are the settings of certificates by ACME.
type acmeSetting struct {
	enable bool
	hosts  []string
	ca     string
	caRoot string // PEM
	email  string
	cache  string
	http   string
}

func acmeSettings() []*setting {
	return []*setting{
		{
			name: "guard_proxy", group: groupSidecar, help: "hold proxied requests, too, against --cors and --allowed_hosts",
			set: one(parseBool, func(c *Config) *bool { return &c.Sidecar.GuardProxy }),
		},
		{
			name: "enable_acme", group: groupSidecar, help: "speak TLS with certificates that an authority issues by ACME",
			set: one(parseBool, func(c *Config) *bool { return &c.acme.enable }),
		},
		{
			name: "acme_hosts", group: groupSidecar, value: "HOST,…", note: "any that clients ask for, within a rate",
			help: "the names to have certificates for", list: true,
			set: many(parseACMEHosts, func(c *Config) *[]string { return &c.acme.hosts }),
		},
		{
			name: "acme_ca", group: groupSidecar, value: "URL", note: "Let's Encrypt", help: "the directory of the authority",
			set: one(parseDirectory, func(c *Config) *string { return &c.acme.ca }),
		},
		{
			name: "acme_ca_root", group: groupSidecar, value: "FILE", note: "the system's", help: "whom to trust about who the authority is, as PEM",
			set: one(parseName, func(c *Config) *string { return &c.acme.caRoot }),
		},
		{
			name: "acme_email", group: groupSidecar, value: "ADDRESS", help: "whom the authority may write to",
			set: one(parseEmail, func(c *Config) *string { return &c.acme.email }),
		},
		{
			name: "acme_cache", group: groupSidecar, value: "DIR", note: "acme in data_dir", help: "where account, certificates and keys are kept",
			set: one(parseName, func(c *Config) *string { return &c.acme.cache }),
		},
		{
			name: "acme_http_address", group: groupSidecar, value: "ADDRESS", def: defaultACMEHTTP,
			help: "where challenges are answered without TLS and all else is redirected",
			set:  one(parseListenTCP, func(c *Config) *string { return &c.acme.http }),
		},
	}
}

// defaultACMEHTTP is where HTTP-01 is answered.
const defaultACMEHTTP = ":80"

// parseACMEHosts takes names that certificates can be issued for.
func parseACMEHosts(items []string) ([]string, error) {
	for _, host := range items {
		if strings.Contains(host, "*") {
			return nil, fmt.Errorf("%q: a certificate for all names below one needs DNS-01, which the sidecar has not", host)
		}
	}
	hosts, err := parseHosts(items)
	if err != nil {
		return nil, err
	}
	for i := range hosts {
		hosts[i] = strings.ToLower(hosts[i])
	}
	return hosts, nil
}

func parseDirectory(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return "", expected(s, "the https URL of an ACME directory")
	}
	return s, nil
}

func parseEmail(s string) (string, error) {
	if name, host, ok := strings.Cut(s, "@"); !ok || name == "" || host == "" || strings.ContainsAny(s, " ,<>") {
		return "", expected(s, "an address such as ops@example.com")
	}
	return s, nil
}

// finishACME makes the options of --enable_acme. dataDir is where its cache goes
// when nobody says.
func (c *Config) finishACME(given map[string]origin, dataDir string) error {
	a := &c.acme
	if !a.enable {
		for _, name := range []string{"acme_hosts", "acme_ca", "acme_ca_root", "acme_email", "acme_cache", "acme_http_address"} {
			// The default may stand in a file that "config show" wrote.
			if from, ok := given[name]; ok && (name != "acme_http_address" || a.http != defaultACMEHTTP) {
				return fmt.Errorf("%s needs --enable_acme", from)
			}
		}
		return nil
	}
	if c.tls.enable {
		return fmt.Errorf("%s and %s: the certificate comes from files or by ACME, not both", given["enable_tls"], given["enable_acme"])
	}
	var roots *x509.CertPool
	if a.caRoot != "" {
		var err error
		if roots, err = certs.ReadPool(a.caRoot); err != nil {
			return fmt.Errorf("%s: %w", given["acme_ca_root"], err)
		}
	}
	from, cache := given["acme_cache"], a.cache
	if cache == "" {
		if dataDir == "" {
			return errors.New("--enable_acme needs --acme_cache: this machine does not say where programs keep their files")
		}
		from, cache = "--enable_acme", filepath.Join(dataDir, "acme")
	}
	if !writable(cache) {
		return fmt.Errorf("%s: %s is not writable: certificates would be issued anew at every start", from, cache)
	}
	c.Sidecar.ACME = &certs.ACMEOptions{
		Hosts: a.hosts, CA: a.ca, Roots: roots, Email: a.email, Cache: cache, HTTPAddress: a.http,
	}
	return nil
}

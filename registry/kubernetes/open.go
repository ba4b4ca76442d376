package kubernetes

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/micro/sidecar/internal/engineurl"
)

const (
	// accountDir is where a pod finds who it is.
	accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"
	// inCluster as a host is the pod's own cluster.
	inCluster = "in-cluster"
)

// configure reads an address; see [Open].
func configure(u *url.URL) (config, error) {
	if u == nil {
		u = &url.URL{Scheme: "kubernetes", Host: inCluster}
	}
	if u.Scheme != "kubernetes" && u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return config{}, errors.New("expected kubernetes://HOST:PORT, the path of a kubeconfig file, or kubernetes://" + inCluster)
	}
	p := engineurl.Query(u)
	given := p.String("namespace", "")
	var c config
	var err error
	switch {
	case u.Host == inCluster:
		c, err = fromPod()
	case u.Scheme == "kubernetes" && u.Path != "" && u.Path != "/":
		c, err = fromFile(u.Host+u.Path, p.String("context", ""))
	default:
		var hosts []string
		if hosts, err = engineurl.Hosts(u, "443"); err == nil && len(hosts) > 1 {
			err = errors.New("expected one host, the API server")
		}
		if err == nil {
			c.tls = engineurl.TLS(p, u.Scheme != "http")
			c.tokenFile = p.String("token_file", "")
			c.server = "https://" + hosts[0]
			if u.Scheme == "http" {
				c.server = "http://" + hosts[0]
			}
			c.server += strings.TrimRight(u.Path, "/")
		}
	}
	if err != nil {
		return config{}, err
	}
	if err := p.Err(); err != nil {
		return config{}, err
	}
	if c.tokenFile != "" {
		if _, err := c.token(); err != nil {
			return config{}, err
		}
	}
	c.namespace = cmp.Or(given, c.namespace, "default")
	if c.namespace == "*" {
		c.namespace = ""
	} else if strings.ContainsFunc(c.namespace, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) {
		return config{}, fmt.Errorf("parameter namespace: expected the name of one, or *, got %.64q", c.namespace)
	}
	return c, nil
}

// fromPod is what a pod is given.
func fromPod() (config, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return config{}, errOutside
	}
	authorities, err := os.ReadFile(filepath.Join(accountDir, "ca.crt"))
	if err != nil {
		return config{}, err
	}
	c := config{server: "https://" + net.JoinHostPort(host, port), tokenFile: filepath.Join(accountDir, "token")}
	if c.tls, err = trust(authorities); err != nil {
		return config{}, err
	}
	if ns, err := os.ReadFile(filepath.Join(accountDir, "namespace")); err == nil {
		c.namespace = strings.TrimSpace(string(ns))
	}
	return c, nil
}

func trust(authorities []byte) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(authorities) == 0 {
		return c, nil
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(authorities) {
		return nil, errors.New("the authorities hold no certificate")
	}
	return c, nil
}

// kubeconfig is what is read of a kubeconfig file.
type kubeconfig struct {
	CurrentContext string `yaml:"current-context"`
	Contexts       []struct {
		Name    string `yaml:"name"`
		Context struct {
			Cluster   string `yaml:"cluster"`
			User      string `yaml:"user"`
			Namespace string `yaml:"namespace"`
		} `yaml:"context"`
	} `yaml:"contexts"`
	Clusters []struct {
		Name    string `yaml:"name"`
		Cluster struct {
			Server     string `yaml:"server"`
			CAFile     string `yaml:"certificate-authority"`
			CAData     string `yaml:"certificate-authority-data"`
			ServerName string `yaml:"tls-server-name"`
			Insecure   bool   `yaml:"insecure-skip-tls-verify"`
		} `yaml:"cluster"`
	} `yaml:"clusters"`
	Users []struct {
		Name string   `yaml:"name"`
		User kubeuser `yaml:"user"`
	} `yaml:"users"`
}

type kubeuser struct {
	Token     string    `yaml:"token"`
	TokenFile string    `yaml:"tokenFile"`
	CertFile  string    `yaml:"client-certificate"`
	CertData  string    `yaml:"client-certificate-data"`
	KeyFile   string    `yaml:"client-key"`
	KeyData   string    `yaml:"client-key-data"`
	Exec      yaml.Node `yaml:"exec"`
}

// fromFile reads a kubeconfig file.
func fromFile(path, context string) (config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return config{}, err
	}
	var k kubeconfig
	if err := yaml.Unmarshal(text, &k); err != nil {
		return config{}, fmt.Errorf("%s: %w", path, err)
	}
	c, err := k.config(filepath.Dir(path), cmp.Or(context, k.CurrentContext))
	if err != nil {
		return config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (k *kubeconfig) config(dir, context string) (config, error) {
	at := slices.IndexFunc(k.Contexts, func(c struct {
		Name    string `yaml:"name"`
		Context struct {
			Cluster   string `yaml:"cluster"`
			User      string `yaml:"user"`
			Namespace string `yaml:"namespace"`
		} `yaml:"context"`
	}) bool {
		return c.Name == context
	})
	if at < 0 {
		return config{}, fmt.Errorf("no context %q", context)
	}
	chosen := k.Contexts[at].Context
	c := config{namespace: chosen.Namespace}
	for _, cluster := range k.Clusters {
		if cluster.Name != chosen.Cluster {
			continue
		}
		ca, err := data(dir, cluster.Cluster.CAData, cluster.Cluster.CAFile)
		if err != nil {
			return config{}, err
		}
		if c.tls, err = trust(ca); err != nil {
			return config{}, err
		}
		c.server = strings.TrimRight(cluster.Cluster.Server, "/")
		c.tls.ServerName, c.tls.InsecureSkipVerify = cluster.Cluster.ServerName, cluster.Cluster.Insecure
	}
	if u, err := url.Parse(c.server); err != nil || u.Host == "" {
		return config{}, fmt.Errorf("no cluster %q with a server", chosen.Cluster)
	}
	for _, user := range k.Users {
		if user.Name == chosen.User {
			err := user.User.apply(dir, &c)
			return c, err
		}
	}
	return c, nil
}

// apply makes c ask as the user.
func (u *kubeuser) apply(dir string, c *config) error {
	if !u.Exec.IsZero() {
		return errors.New("its user is made by a program (exec), which is not supported: use a token")
	}
	c.bearer = u.Token
	if u.TokenFile != "" {
		c.tokenFile = inDir(dir, u.TokenFile)
	}
	cert, err := data(dir, u.CertData, u.CertFile)
	if err != nil || len(cert) == 0 {
		return err
	}
	key, err := data(dir, u.KeyData, u.KeyFile)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("the client's certificate: %w", err)
	}
	c.tls.Certificates = []tls.Certificate{pair}
	return nil
}

// data returns what stands there in base64, or in a file.
func data(dir, encoded, file string) ([]byte, error) {
	if encoded != "" {
		return base64.StdEncoding.DecodeString(encoded)
	}
	if file == "" {
		return nil, nil
	}
	return os.ReadFile(inDir(dir, file))
}

func inDir(dir, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

package testserver

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// KubernetesServer is an API server of Kubernetes on an etcd of its own, with
// no controllers and no nodes: what exists is what a test creates.
type KubernetesServer struct {
	Addr      string // host:port, for https
	CAFile    string
	TokenFile string

	t       testing.TB
	path    string
	args    []string
	process *process
	client  *http.Client
}

// kubernetesToken is who a test is.
const kubernetesToken = "test-token"

// Kubernetes starts an API server and returns when it is ready. It is killed
// when the test ends. The binary is kube-apiserver on PATH or in .cache/bin, or
// what MICRO_TEST_KUBE_APISERVER names.
func Kubernetes(t testing.TB) *KubernetesServer {
	t.Helper()
	path := find(t, "kube-apiserver", "MICRO_TEST_KUBE_APISERVER")
	etcd := Etcd(t)
	dir := t.TempDir()
	port := freePorts(t, 1)[0]
	s := &KubernetesServer{
		Addr: "127.0.0.1:" + strconv.Itoa(port), CAFile: filepath.Join(dir, "apiserver.crt"),
		TokenFile: filepath.Join(dir, "token"), t: t, path: path,
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	account := filepath.Join(dir, "account.key")
	writePEM(t, account, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	tokens := filepath.Join(dir, "tokens.csv")
	for path, text := range map[string]string{tokens: kubernetesToken + ",tester,1\n", s.TokenFile: kubernetesToken + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.args = []string{
		"--etcd-servers=http://" + etcd.Addr, "--cert-dir=" + dir, "--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(port),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + account,
		"--service-account-signing-key-file=" + account, "--service-cluster-ip-range=10.0.0.0/24",
		"--authorization-mode=AlwaysAllow", "--token-auth-file=" + tokens, "--anonymous-auth=false",
		"--disable-admission-plugins=ServiceAccount", "--v=0",
	}
	t.Cleanup(s.Stop)
	s.Start()
	return s
}

// Stop kills the server. What it knows is in its etcd.
func (s *KubernetesServer) Stop() {
	if s.process != nil {
		s.process.kill()
		s.process = nil
	}
}

// Start starts a server that was stopped and returns when it is ready.
func (s *KubernetesServer) Start() {
	s.t.Helper()
	p, err := start(exec.Command(s.path, s.args...))
	if err != nil {
		s.t.Fatal(err)
	}
	s.process = p
	if err := p.await(2*startTimeout, s.ready); err != nil {
		s.t.Fatalf("start kube-apiserver: %v", err)
	}
}

func (s *KubernetesServer) ready() error {
	if err := s.connect(); err != nil {
		return err
	}
	status, _, err := s.do(http.MethodGet, "/readyz", nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("/readyz answers %d", status)
	}
	return err
}

// connect makes the client, once the server has made its certificate.
func (s *KubernetesServer) connect() error {
	if s.client != nil {
		return nil
	}
	text, err := os.ReadFile(s.CAFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		pool.AppendCertsFromPEM(pem.EncodeToMemory(block))
	}
	s.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
	}}
	return nil
}

// Do sends an object, or asks for one, and fails the test unless the API does
// as it is asked.
func (s *KubernetesServer) Do(method, path string, object any) {
	s.t.Helper()
	status, body, err := s.do(method, path, object)
	if err != nil || status >= http.StatusBadRequest {
		s.t.Fatalf("%s %s: %d %s, %v", method, path, status, body, err)
	}
}

func (s *KubernetesServer) do(method, path string, object any) (status int, body []byte, err error) {
	if object != nil {
		if body, err = json.Marshal(object); err != nil {
			return 0, nil, err
		}
	}
	request, err := http.NewRequest(method, "https://"+s.Addr+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+kubernetesToken)
	request.Header.Set("Content-Type", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		return 0, nil, fmt.Errorf("read: %w", err)
	}
	return response.StatusCode, body, nil
}

package etcd

import (
	"context"
	"errors"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// login adds to every call the token that etcd gave for user and password. The
// client's own way has two faults: it fails to open while etcd is away, and
// when a token has run out it asks for another with the old one, which etcd
// 3.4 refuses. Here the first call that is refused logs in, and goes on.
type login struct {
	user, password string

	mu    sync.Mutex // held while it logs in: once is enough
	token string
}

// options are what makes a client use it.
func (l *login) options() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithPerRPCCredentials(l), grpc.WithChainUnaryInterceptor(l.intercept)}
}

// GetRequestMetadata implements [google.golang.org/grpc/credentials.PerRPCCredentials].
func (l *login) GetRequestMetadata(_ context.Context, uri ...string) (map[string]string, error) {
	if len(uri) > 0 && strings.HasSuffix(uri[0], "etcdserverpb.Auth") {
		return nil, nil // it is how we log in
	}
	if token := l.current(); token != "" {
		return map[string]string{rpctypes.TokenFieldNameGRPC: token}, nil
	}
	return nil, nil
}

// RequireTransportSecurity implements the same: whether there is TLS is the
// address's affair.
func (l *login) RequireTransportSecurity() bool { return false }

func (l *login) intercept(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if method == pb.Auth_Authenticate_FullMethodName {
		return invoke(ctx, method, request, reply, conn, options...)
	}
	used := l.current()
	err := invoke(ctx, method, request, reply, conn, options...)
	if !refused(err) {
		return err
	}
	if err := l.renew(ctx, conn, used); err != nil {
		return err
	}
	return invoke(ctx, method, request, reply, conn, options...)
}

// refused tells that a call came without a token that counts.
func refused(err error) bool {
	err = rpctypes.Error(err)
	return errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}

// renew gets another token than the one that was used.
func (l *login) renew(ctx context.Context, conn *grpc.ClientConn, used string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.token != used {
		return nil
	}
	answer, err := pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: l.user, Password: l.password})
	if err != nil {
		return err
	}
	l.token = answer.GetToken()
	return nil
}

func (l *login) current() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token
}

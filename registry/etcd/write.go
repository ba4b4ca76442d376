package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/micro/sidecar/registry"
)

// writers bounds how many nodes of one call are written at the same time.
const writers = 16

// Register implements [registry.Registry]. A node that is there as it should
// be costs a read and a renewal of its lease, and nobody hears of it.
func (r *Registry) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	err := r.each(ctx, s, func(ctx context.Context, n registry.Node) error {
		value, err := encode(s, n)
		if err != nil {
			return err
		}
		return r.put(ctx, r.prefix+key(s.Name, n.ID), value, ttl)
	})
	if err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	return nil
}

// Deregister implements [registry.Registry]. A lease that then holds nothing
// runs out by itself.
func (r *Registry) Deregister(ctx context.Context, s registry.Service) error {
	err := r.each(ctx, s, func(ctx context.Context, n registry.Node) error {
		if !plain(s.Name, n.ID) {
			if err := r.removeTheirs(ctx, s.Name, n.ID); err != nil {
				return err
			}
		}
		_, err := r.client.Delete(ctx, r.prefix+key(s.Name, n.ID))
		return err
	})
	if err != nil {
		return fmt.Errorf("deregister %s: %w", s.Name, err)
	}
	return nil
}

// each does something for every node of s and returns the first error.
func (r *Registry) each(ctx context.Context, s registry.Service, do func(context.Context, registry.Node) error) error {
	if s.Name == "" {
		return errors.New("the service has no name")
	}
	for _, n := range s.Nodes {
		if n.ID == "" {
			return errors.New("a node has no id")
		}
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	work, inner := errgroup.WithContext(ctx)
	work.SetLimit(writers)
	for _, n := range s.Nodes {
		work.Go(func() error {
			if err := do(inner, n); err != nil {
				return fmt.Errorf("node %.100q: %w", n.ID, r.failure.explain(ctx, err))
			}
			return nil
		})
	}
	return work.Wait()
}

// put writes a node, or renews one that is there as it should be.
func (r *Registry) put(ctx context.Context, at string, value []byte, ttl time.Duration) error {
	have, err := r.client.Get(ctx, at)
	if err != nil {
		return err
	}
	seconds := int64(math.Ceil(ttl.Seconds()))
	if len(have.Kvs) == 1 && bytes.Equal(have.Kvs[0].Value, value) {
		if renewed, err := r.renew(ctx, have.Kvs[0], seconds); renewed || err != nil {
			return err
		}
	}
	if ttl <= 0 {
		_, err := r.client.Put(ctx, at, string(value))
		return err
	}
	lease, err := r.client.Grant(ctx, seconds)
	if err != nil {
		return err
	}
	if lease.TTL > seconds {
		r.minTTL.Store(lease.TTL)
	}
	_, err = r.client.Put(ctx, at, string(value), clientv3.WithLease(lease.ID))
	return err
}

// renew begins a node's time to live anew and reports whether it has it.
func (r *Registry) renew(ctx context.Context, kv *mvccpb.KeyValue, seconds int64) (bool, error) {
	if kv.Lease == 0 || seconds <= 0 {
		return kv.Lease == 0 && seconds <= 0, nil
	}
	answer, err := r.client.KeepAliveOnce(ctx, clientv3.LeaseID(kv.Lease))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) { // it ran out just now
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return answer.TTL == max(seconds, r.minTTL.Load()), nil
}

// removeTheirs removes a node from where go-micro writes it, if it is that
// node: the key is also that of others.
func (r *Registry) removeTheirs(ctx context.Context, name, id string) error {
	at := folder(name) + "/" + hyphened(id)
	have, err := r.client.Get(ctx, r.prefix+at)
	if err != nil {
		return err
	}
	for _, kv := range have.Kvs {
		e, err := decode(at, kv.Value)
		if err != nil || e.service.Name != name || e.service.Nodes[0].ID != id {
			continue
		}
		same := clientv3.Compare(clientv3.ModRevision(r.prefix+at), "=", kv.ModRevision)
		if _, err := r.client.Txn(ctx).If(same).Then(clientv3.OpDelete(r.prefix + at)).Commit(); err != nil {
			return err
		}
	}
	return nil
}

package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micro/sidecar/registry"
)

// pageSize is how many keys are asked for at once.
const pageSize = 1000

// sizes are the pages that are asked for, each where the one before is larger
// than maxAnswer because somebody has written large values. The second cannot
// be, unless etcd was told to take more than maxRequest; the last holds a key
// alone, whose value is then as good as none.
var sizes = [][]clientv3.OpOption{
	{clientv3.WithLimit(pageSize)},
	{clientv3.WithLimit(maxAnswer/maxRequest - 1)},
	{clientv3.WithLimit(1)},
	{clientv3.WithLimit(1), clientv3.WithKeysOnly()},
}

// Get implements [registry.Registry]. It reads the keys of that service alone.
func (r *Registry) Get(ctx context.Context, name string) ([]registry.Service, error) {
	if name == "" {
		return nil, fmt.Errorf("get %q: %w", name, registry.ErrNotFound)
	}
	var entries []*entry
	err := r.read(ctx, folder(name)+"/", func(at string, kv *mvccpb.KeyValue) {
		if e := r.decode(at, kv); e != nil && e.service.Name == name { // a/b and a-b share a folder
			entries = append(entries, e)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("get %s: %w", name, registry.ErrNotFound)
	}
	return group(entries), nil
}

// List implements [registry.Registry]. It reads everything.
func (r *Registry) List(ctx context.Context) ([]string, error) {
	names := make(map[string]struct{})
	err := r.read(ctx, "", func(at string, kv *mvccpb.KeyValue) {
		if e := r.decode(at, kv); e != nil {
			names[e.service.Name] = struct{}{}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	return slices.AppendSeq(make([]string, 0, len(names)), slices.Values(slices.Sorted(maps.Keys(names)))), nil
}

// decode returns what a key holds, nil when it is no registration.
func (r *Registry) decode(at string, kv *mvccpb.KeyValue) *entry {
	e, err := decode(at, kv.Value)
	if err != nil {
		r.odd.Warn("registry: an entry that is no registration is passed over", "key", fmt.Sprintf("%.200q", kv.Key), "error", err)
		return nil
	}
	e.revision = kv.ModRevision
	return e
}

// read hands over what is below a folder, as it is at one time: all of it, or
// an error. The answer comes from the leader's point of view: what was written
// before is in it.
func (r *Registry) read(ctx context.Context, dir string, each func(at string, kv *mvccpb.KeyValue)) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	from, end := r.prefix+dir, clientv3.GetPrefixRangeEnd(r.prefix+dir)
	size, revision := 0, int64(0)
	for {
		answer, err := r.client.Get(ctx, from, append(sizes[size], clientv3.WithRange(end), clientv3.WithRev(revision))...)
		switch {
		case status.Code(err) == codes.ResourceExhausted && size < len(sizes)-1:
			size++
			continue
		case errors.Is(err, rpctypes.ErrCompacted):
			return fmt.Errorf("there are too many changes to read all of it: %w", err)
		case err != nil:
			return r.failure.explain(ctx, err)
		}
		for _, kv := range answer.Kvs {
			each(strings.TrimPrefix(string(kv.Key), r.prefix), kv)
		}
		if !answer.More || len(answer.Kvs) == 0 {
			return nil
		}
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
		if revision == 0 {
			revision = answer.Header.Revision
		}
		size = min(size, 1) // what was larger still is behind us
	}
}

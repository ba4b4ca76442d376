package redis_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/testserver"
)

// A batch, as HTTP's batch=ndjson makes them: one by one, and together.
func BenchmarkPublish(b *testing.B) {
	server := testserver.Redis(b)
	r := open(b, server)
	defer r.Close()
	ctx := b.Context()
	if err := r.Declare(ctx, "bench", "q", broker.QueueOptions{}); err != nil {
		b.Fatal(err)
	}
	m := broker.Message{Header: map[string]string{"Content-Type": "application/json"}, Body: make([]byte, 200)}
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			all, ids := make([]broker.Message, n), make([]string, n)
			for i := range all {
				all[i] = m
			}
			for b.Loop() {
				if err := errors.Join(r.PublishAll(ctx, "bench", ids, all)...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

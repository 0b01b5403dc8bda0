package service

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Do calls step with a client of etcd until etcd answers. The errors are those of Fill.
func (s *Session) Do(ctx context.Context, step func(context.Context, *clientv3.Client) error) error {
	return s.try(ctx, func(ctx context.Context) error { return step(ctx, s.client) })
}

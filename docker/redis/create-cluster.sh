#!/bin/sh
# Makes one cluster of six nodes of Redis: three shards with a replica each. Does nothing if it exists.
set -eu

if redis-cli -h redis-1 CLUSTER INFO | grep -q '^cluster_state:ok'; then
  exit
fi
# Nodes meet by address.
set --
for n in 1 2 3 4 5 6; do
  set -- "$@" "$(getent hosts "redis-$n" | cut -d ' ' -f 1):6379"
done
redis-cli --cluster create "$@" --cluster-replicas 1 --cluster-yes
until redis-cli -h redis-1 CLUSTER INFO | grep -q '^cluster_state:ok'; do
  sleep 0.2
done

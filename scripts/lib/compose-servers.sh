# shellcheck shell=bash
# Starts the servers of docker-compose.yml without its workers, in a separate project: a stack that was
# started by hand from the same file is not touched. Sourced; uses $root and $state.

: "${root:?}" "${state:?}"
project=rpcache-$(cksum <<<"$state" | cut -d ' ' -f 1)

compose() {
  local command=(docker-compose)
  ! docker compose version >/dev/null 2>&1 || command=(docker compose)
  "${command[@]}" --project-name "$project" --file "$root/docker-compose.yml" "$@" >&2 9>&-
}

# An engine on another machine listens on that machine's loopback.
has_compose() {
  [[ ${DOCKER_HOST:-unix:} == unix:* ]] && docker info >/dev/null 2>&1 || return 1
  docker compose version >/dev/null 2>&1 || has docker-compose
}

# container_of NAME: the id of its container, if it runs.
container_of() {
  local id
  [[ -e $state/compose ]] || return 1
  id=$(docker ps --quiet --filter "label=com.docker.compose.project=$project" \
    --filter "label=com.docker.compose.service=$1" 2>/dev/null) && [[ -n $id ]] && echo "$id"
}

# start_containers NAME...: false on failure, for example if images are missing.
start_containers() {
  # A running container keeps its port, because Compose would replace it otherwise.
  container_of redis >/dev/null || choose_port redis
  container_of rabbitmq >/dev/null || choose_port rabbitmq
  touch "$state/compose"
  started+=(containers)
  REDIS_PORT=$(<"$state/redis.port") AMQP_PORT=$(<"$state/rabbitmq.port") \
    MANAGEMENT_PORT=$(port_or_free 15672) compose up --detach "$@"
}

# remove_containers NAME...: removes them, and the project's network with the last one.
remove_containers() {
  compose rm --stop --force "$@" || true
  container_of redis >/dev/null || container_of rabbitmq >/dev/null || stop_containers || true
}

# Removes all containers of the project, and its network.
stop_containers() {
  [[ -e $state/compose ]] || return 0
  if ! has_compose; then
    say 'The Docker engine does not run, so neither do its containers; "down" removes them when it does'
    return 0
  fi
  compose down --volumes && rm -f "$state/compose"
}

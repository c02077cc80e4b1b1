# shellcheck shell=bash
# Starts a private redis-server and rabbitmq-server of this machine, on loopback only. Sourced; uses
# $root and $state. Both start empty: answers can be computed again, requests live for seconds, and
# data of a crashed or older server cannot cause faults.

: "${root:?}" "${state:?}"

start_redis() {
  local dir=$state/redis
  rm -rf "$dir" && mkdir -p "$dir"
  choose_port redis
  # Memory is limited; the least frequently used answers are evicted.
  start redis "$(find_redis)" \
    --port "$(<"$state/redis.port")" --bind 127.0.0.1 --dir "$dir" \
    --save '' --appendonly no --maxmemory 256mb --maxmemory-policy allkeys-lfu
}

start_rabbitmq() {
  local dir=$state/rabbitmq epmd_port
  rm -rf "$dir" && mkdir -p "$dir"
  choose_port rabbitmq

  # Erlang's name server. Without it, the node starts one that outlives it.
  stop epmd 5
  epmd_port=$(port_or_free 24369)
  start epmd "$(find_epmd)" -address 127.0.0.1 -port "$epmd_port"

  cat >"$dir/rabbitmq.conf" <<-EOF
	listeners.tcp.1 = 127.0.0.1:$(<"$state/rabbitmq.port")
	# Users, limits and dead-lettering of docker-compose.yml.
	load_definitions = $root/docker/rabbitmq/definitions.json
	log.console = true
	log.console.use_colors = off
	log.file = false
	EOF
  echo '[].' | tee "$dir/advanced.config" >"$dir/enabled_plugins"

  # Neither the caller's environment nor /etc/rabbitmq has an effect. With ALLOW_INPUT, the script
  # becomes the node in place of its parent, so that its pid is the node's.
  start rabbitmq env -i PATH="$PATH" HOME="$dir" LANG=C.UTF-8 \
    ERL_EPMD_ADDRESS=127.0.0.1 \
    ERL_EPMD_PORT="$epmd_port" \
    RABBITMQ_ADVANCED_CONFIG_FILE="$dir/advanced.config" \
    RABBITMQ_ALLOW_INPUT=1 \
    RABBITMQ_CONF_ENV_FILE=/dev/null \
    RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf" \
    RABBITMQ_CONFIG_FILES="$dir/conf.d/*.conf" \
    RABBITMQ_DIST_PORT="$(port_or_free 25672)" \
    RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins" \
    RABBITMQ_LOG_BASE="$dir/log" \
    RABBITMQ_MNESIA_BASE="$dir/data" \
    RABBITMQ_NODENAME=rpcache@localhost \
    RABBITMQ_PID_FILE="$dir/pid" \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-noinput -kernel inet_dist_use_interface {127,0,0,1}' \
    "$(find_rabbitmq)"
}

# If it is not on the PATH, it is next to the Erlang VM.
find_epmd() {
  find_first epmd || erl -boot start_clean -noinput -eval '
    io:put_chars(filename:join([code:root_dir(), "erts-" ++ erlang:system_info(version), "bin", "epmd"])),
    halt().'
}

stop_redis() { stop redis 5; }

stop_rabbitmq() {
  stop rabbitmq 20
  stop epmd 5
}

# shellcheck shell=bash
# Finds free ports, and checks which server answers on a port. Sourced.

# Checks both loopbacks: localhost may mean either.
listens() {
  (: >"/dev/tcp/127.0.0.1/$1") 2>/dev/null || (: >"/dev/tcp/::1/$1") 2>/dev/null
}

# port_or_free PORT...: the first free one of these, otherwise any below the range that the system uses
# for outgoing connections.
port_or_free() {
  local port
  for port; do
    listens "$port" || break
  done
  while listens "$port"; do port=$((20000 + RANDOM % 10000)); done
  echo "$port"
}

# In a subshell, whose end closes the connection, and which gets the signal if the peer closes too early:
# Docker accepts connections before the container does.
redis_answers() (
  exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
  printf 'PING\r\n' >&3
  read -r -t 2 reply <&3 && [[ $reply == +PONG* ]]
)

# A broker answers a client's first eight bytes with a method frame, type 1. It listens only
# when it has started and knows its users and queues.
rabbitmq_answers() (
  exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
  printf 'AMQP\0\0\11\1' >&3
  IFS= read -r -t 2 -n 1 reply <&3 && [[ $reply == $'\1' ]]
)

# The command rpcache in a small image that runs as an ordinary user.
# Both base images must carry the same Debian release: the command links to its libc.
ARG RUST_IMAGE=rust:1-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /build
# The dependencies first, under an empty program: a layer that stays until Cargo.* change.
# (A target that Cargo.toml names by hand needs an empty file here, too.)
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src/bin/rpcache tests/chaos benches/calls benches/minimal examples \
    && touch src/lib.rs tests/chaos/main.rs benches/fibonacci.rs benches/calls/main.rs \
        benches/minimal/raw_get.rs benches/minimal/raw_rpc.rs examples/client_metrics.rs \
    && echo 'fn main() {}' >src/bin/rpcache/main.rs \
    && cargo build --release --locked --bin rpcache
COPY src src
# Cargo goes by modification times, and the sources are older than what was just built.
RUN touch src/lib.rs src/bin/rpcache/main.rs \
    && cargo build --release --locked --bin rpcache

FROM ${RUNTIME_IMAGE}
COPY --from=build /build/target/release/rpcache /usr/local/bin/rpcache
# nobody: needs no entry in any file of the base image.
USER 65534:65534
STOPSIGNAL SIGTERM
ENTRYPOINT ["rpcache"]
CMD ["worker"]

# The command rpcache in an image that holds nothing else, and runs as nobody. It is a static binary: the
# image has no libc, no shell, and nothing to keep up to date but itself.
ARG RUST_IMAGE=rust:1-slim-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /build
# With --target the flags are for the command alone: what runs while building stays as it is.
ENV RUSTFLAGS="-C target-feature=+crt-static" CARGO_TARGET_DIR=/build/target
# The dependencies first, under an empty program: a layer that stays until Cargo.* change.
# (A target that Cargo.toml names by hand needs an empty file here, too.)
COPY Cargo.toml Cargo.lock ./
RUN rustc -vV | sed -n 's/^host: //p' >/build/host \
    && mkdir -p src/bin/rpcache tests/chaos benches/calls benches/minimal examples \
    && touch src/lib.rs tests/chaos/main.rs benches/calls/main.rs \
        benches/minimal/raw_get.rs benches/minimal/raw_rpc.rs examples/client_metrics.rs \
    && echo 'fn main() {}' >src/bin/rpcache/main.rs \
    && cargo build --release --locked --bin rpcache --target "$(cat host)"
COPY src src
# Cargo goes by modification times, and the sources are older than what was just built.
RUN touch src/lib.rs src/bin/rpcache/main.rs \
    && cargo build --release --locked --bin rpcache --target "$(cat host)" \
    && install -D "target/$(cat host)/release/rpcache" /image/usr/bin/rpcache
# By what names are found, and whom TLS trusts.
RUN mkdir -p /image/etc/ssl/certs \
    && echo 'hosts: files dns' >/image/etc/nsswitch.conf \
    && echo 'nobody:x:65534:65534:nobody:/:/usr/sbin/nologin' >/image/etc/passwd \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

# Core dumps, which would hold passwords, are switched off by the program itself.
FROM scratch
COPY --from=build /image /
USER 65534:65534
# A worker's health, for itself alone; 0.0.0.0:9464 is for scrapers, too.
ENV RPCACHE_METRICS_ADDR=127.0.0.1:9464
# Healthy is who takes requests. Without Redis it is, too. Commands other than worker have no health.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/usr/bin/rpcache", "health"]
# It answers what it holds before it ends, which may take 10 s: give it 15.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/rpcache"]
CMD ["worker"]

# The image of Ringmaster: built in one stage, then only the binary on a base without a shell, not as root.
# Never holds configuration: that comes by arguments, environment or a mounted file.
FROM rust:1.89-slim-bookworm AS build
# The allocator's build runs make.
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY shards/rust shards/rust
# Cargo reads every target that Cargo.toml names, also those that aren't built.
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin ringmaster && cp target/release/ringmaster /ringmaster

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /ringmaster /ringmaster
USER 65532:65532
EXPOSE 9999 8081
ENTRYPOINT ["/ringmaster"]
CMD ["run"]

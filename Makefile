# What there is to run. Nothing here downloads a binary: components and tools are built once, from their registries, into
# the cache folder.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ringmaster
DENY := $(CACHE)/tools/bin/cargo-deny
DENY_VERSION := 0.20.2
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)
# Three at a time: more starve each other of two cores, and their Leases count seconds.
MEMBERS := members_ --test-threads=3
UNIT_TESTS := $(if $(NEXTEST),cargo nextest run --workspace --lib --bins,cargo test --workspace --lib --bins)

.DEFAULT_GOAL := help
.PHONY: help test unit examples suites members members-figures rings rings-figures soak fuzz lint crds apiserver demo bench prerequisites

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

test: prerequisites unit examples suites members rings ## All tests: unit, examples, every suite on the embedded and the real API server

unit: ## Tests without I/O, or on loopback only
	$(UNIT_TESTS)

examples: ## The examples' and shard libraries' own tests
	python3 -m unittest discover -s webhooks-examples/python/website
	python3 -m unittest discover -s webhooks-examples/python/counter
	@if kopf=$$(tests/components/python); then cd shards/python && $$kopf -m unittest; \
	elif [ "$$CI" = true ]; then echo "kopf can't be installed: the Python shard can't be tested" >&2; exit 1; \
	else echo "kopf can't be installed: what needs it is skipped" >&2; cd shards/python && python3 -m unittest; fi
	@if command -v go >/dev/null; then export GOTOOLCHAIN=local; \
		for module in webhooks-examples/go/website shards/go; do (cd $$module && go vet ./... && go test -count=1 ./...) || exit 1; done; \
	elif [ "$$CI" = true ]; then echo "go not found: the Go examples can't be tested" >&2; exit 1; \
	else echo "skipped, since go is not there: the tests of webhooks-examples/go/website and shards/go"; fi

suites: ## Black-box suites on the embedded and the real API server; SUITE=name runs those whose name contains it
	cargo test --test suites -- $(SUITE)

members: ## Every scenario of members, once, with Leases of 5 s
	cargo test --test suites -- $(MEMBERS)

rings: ## Every scenario of external rings, with shards in all three languages
	cargo test --test suites -- rings_ --test-threads=2

rings-figures: ## Their figures with an optimised build and up to 100,000 objects, which must hold the budgets
	cargo build --release --bin ringmaster
	for trial in rings_story rings_assign::everything rings_memory; do \
		RINGMASTER_SUITES_PROFILE=release RINGMASTER_RINGS_FIGURES=1 \
		cargo test --test suites -- --test-threads=1 --nocapture $$trial || exit 1; done

soak: ## The scenarios of members ROUNDS=5 times, once with the default Leases, and their figures with 10,000 parents
	for round in $$(seq $(or $(ROUNDS),5)); do echo "round $$round"; cargo test --test suites -- $(MEMBERS) || exit 1; done
	RINGMASTER_MEMBERS_DEFAULTS=1 cargo test --test suites -- $(MEMBERS)
	$(MAKE) --no-print-directory members-figures

members-figures: ## Their figures with an optimised build and 10,000 parents, which must hold the budgets
	cargo build --release --bin ringmaster
	RINGMASTER_SUITES_PROFILE=release RINGMASTER_MEMBERS_PARENTS=10000 cargo test --test suites -- --test-threads=1 real::members_large

fuzz: ## libFuzzer on what reads bytes of others; SECONDS=600 each, TARGET=merge, patch, reply or watch for one
	tests/fuzz/run $(or $(SECONDS),60) $(TARGET)

lint: ## Formatting, clippy, documentation, dependencies, file sizes; all without a warning
	cargo fmt --all --check
	cd tests/fuzz && cargo fmt --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet
	tests/lint/sizes
	$(MAKE) --no-print-directory $(DENY)
	$(DENY) --locked check bans licenses sources

$(DENY):
	cargo install --locked --quiet cargo-deny --version $(DENY_VERSION) --root $(CACHE)/tools --target-dir $(CACHE)/tools/target
	rm -rf $(CACHE)/tools/target

crds: ## Write manifests/crds from the Rust types
	cargo run --quiet -- crds --out manifests/crds

apiserver: ## A real kube-apiserver with the CRDs, on loopback, until Ctrl-C
	@mkdir -p target/apiserver
	@echo "when the path of the kubeconfig appears, in another terminal:"
	@echo "  export KUBECONFIG=$(CURDIR)/target/apiserver/kubeconfig"
	@echo "  export PATH=$$(tests/components/build):\$$PATH"
	cargo test --test suites -- --serve target/apiserver

demo: ## The Website example with 200 objects, 3 members and 2 to 8 webhooks, live, without a cluster; HOOK=go, ARGS=--once to play the story once
	@test -x "$${CARGO_TARGET_DIR:-target}/release/ringmaster" || echo "building Ringmaster first, which takes some minutes" >&2
	cargo run --release --quiet -- demo $(if $(HOOK),--hook $(HOOK)) $(ARGS)

bench: ## Ringmaster beside the raw limit of a kube-apiserver, N=5000 Websites; WHAT=apiserver: the embedded server beside the real one
	cargo bench --bench bench -- $(WHAT)

prerequisites:
	@tests/prerequisites

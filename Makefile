# Everything a person does with this checkout. Each target installs what it needs.

CARGO ?= cargo
BIN := target/debug
# The server that the tests of archives run against.
SAMBA := smbd:samba
# The helper program of SMB that is tested a second time; the first is the default.
NATIVE := mfpsync-smb-native
BUILT := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test campaign check bench build package package-test clean

help: ## What can be done here
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

demo: build ## Three daemons, one address book, a cut and a merge (PROCEDURE=P1 to P5 or backup: another server or client; KEEP=1)
	@case "$(PROCEDURE)" in backup) scripts/need $(SAMBA) ;; esac
	$(BIN)/mfpsync demo --daemon $(BIN)/mfpsyncd $(if $(PROCEDURE),--procedure $(PROCEDURE)) $(if $(KEEP),--keep)

build: tools
	$(CARGO) build --locked -p mfpsync-daemon -p mfpsync-cli -p mfpsync-backup

test: tools ## All tests, over real files, sockets and processes (MFPSYNC_NO_SKIP=1, as root: none skipped)
	@scripts/need ip:iproute2 nft:nftables openssl:openssl mount:mount unshare:util-linux sqlite3:sqlite3 $(SAMBA) \
		age:age zstd:zstd strace:strace script:bsdutils smbclient:smbclient
	$(CARGO) build --locked --workspace --all-targets
	$(CARGO) test --locked --workspace
	MFPSYNC_SMB=$(abspath $(BUILT))/debug/$(NATIVE) $(CARGO) test --locked --workspace --test smb
	MFPSYNC_SMB=$(abspath $(BUILT))/debug/$(NATIVE) $(CARGO) test --locked --workspace --test e2e backup::

campaign: tools ## The same for longer: more rounds, larger databases, 10,000 seeds (about two hours)
	@scripts/need ip:iproute2 nft:nftables openssl:openssl mount:mount unshare:util-linux sqlite3:sqlite3 $(SAMBA) \
		age:age zstd:zstd strace:strace script:bsdutils smbclient:smbclient
	$(CARGO) build --locked -p mfpsync-daemon -p mfpsync-cli -p mfpsync-backup
	MFPSYNC_CAMPAIGN=1 MFPSYNC_SEEDS=10000 $(CARGO) test --locked -p mfpsync-tests
	MFPSYNC_CAMPAIGN=1 PROPTEST_CASES=2000 $(CARGO) test --locked -p mfpsync-replication -p mfpsync-storage \
		-p mfpsync-backup

check: tools ## Formatting, lints as errors, documentation, invariants; with cargo-deny also licences
	scripts/invariants
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --locked --log-level error check licenses bans sources; \
	else echo "not checked, for want of cargo-deny: licences and sources of crates"; fi

bench: tools ## Measure against etcd over TLS, redis, a bare echo, Litestream, sqld and sqlite3 with smbclient, in one run
	scripts/need etcd:etcd-server redis-server:redis-server sqlite3:sqlite3 ss:iproute2 python3:python3-venv $(SAMBA) smbclient:smbclient
	scripts/need-peers $(BUILT)/peers
	$(CARGO) build --locked --release -p mfpsync-daemon -p mfpsync-cli -p mfpsync-backup
	$(CARGO) bench --locked -p mfpsync-tests

package: tools ## The Debian package, from the release profile (some minutes)
	@scripts/need dpkg-shlibdeps:dpkg-dev
	$(CARGO) build --locked --release -p mfpsync-daemon -p mfpsync-cli -p mfpsync-backup
	deploy/package/build $(BUILT)/release $(BUILT)/package

package-test: package ## Install, run, upgrade, remove and purge it in a Debian of its own (as root)
	@scripts/need debootstrap:debootstrap lintian:lintian
	lintian --fail-on error,warning $(BUILT)/package/mfpsync_*_$$(dpkg --print-architecture).deb
	deploy/package/test $(BUILT)/package/mfpsync_*_$$(dpkg --print-architecture).deb $(BUILT)/package

.PHONY: tools
tools:
	@scripts/need cc:build-essential pkg-config:pkg-config smbclient.pc:libsmbclient-dev
	@scripts/need-rust

clean: ## Remove everything that was built
	$(CARGO) clean

# Sourced from the project's root by the scripts that test the whole program. Sets THINET to the release build unless it is
# set, and fetches the images of the smoke study.
if [ -z "${THINET:-}" ]; then
    cargo build --quiet --release --package thinet-cli
    THINET=${CARGO_TARGET_DIR:-target}/release/thinet
fi
"$THINET" data fetch --for experiments/smoke.toml >/dev/null 2>&1 || {
    echo 'error: cannot get Fashion-MNIST' >&2
    exit 1
}

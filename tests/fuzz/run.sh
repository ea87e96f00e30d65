#!/usr/bin/env bash
# Fuzzes each target for SECONDS_EACH seconds (60), or those that TARGET names. What is found stays in target/fuzz/corpus/NAME; an
# input that breaks a promise goes to tests/fuzz/crashes/NAME, where `make test` replays it, and ends this with 1.
# KEEP=1 puts a few that cover most into tests/fuzz/corpus/NAME at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${SECONDS_EACH:-60}
# An input longer than this tells nothing that a shorter one does not, and is slow. A stored one is shorter still.
longest=16384
stored_longest=1024
stored_most=24
work=$PWD/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

# What `cargo fuzz --sanitizer none` passes; stable Rust takes all of it. Its own target directory, since other flags build all anew.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=on"
RUSTFLAGS=$(echo $coverage) ${CARGO:-cargo} build --quiet --release --locked -p weft-fuzz --features libfuzzer --bin weft-fuzz --target "$host" --target-dir "$work"
fuzz=$work/$host/release/weft-fuzz

targets=${TARGET:-$(sed -n 's/^    Target { name: "\([a-z]*\)".*/\1/p' tests/fuzz/src/lib.rs)}
broken=0
printf '%-12s %12s %9s %9s %9s %8s\n' target inputs 'per s' edges features corpus
for target in $targets; do
    corpus=$work/corpus/$target stored=tests/fuzz/corpus/$target crashes=tests/fuzz/crashes/$target log=$work/$target.log
    mkdir -p "$corpus" "$stored" "$crashes"
    export WEFT_FUZZ_TARGET=$target WEFT_FUZZ_SEEDS=$corpus
    "$fuzz" -max_total_time="$seconds" -max_len=$longest -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$crashes/" "$corpus" "$stored" >"$log" 2>&1 || {
        broken=1
        echo "$target breaks a promise; $log has all of it:" >&2
        grep -m3 -A2 'panicked at\|ERROR: libFuzzer' "$log" >&2 || tail -n 5 "$log" >&2
        grep 'Test unit written' "$log" >&2 || true
    }
    last=$(grep -o '#[0-9]*.*cov: .*' "$log" | tail -n 1)
    number() { echo "$last" | sed -n "s,.*$1: \([0-9]*\).*,\1,p"; }
    printf '%-12s %12s %9s %9s %9s %8s\n' "$target" "$(echo "$last" | sed 's/^#\([0-9]*\).*/\1/')" "$(number exec/s)" \
        "$(number cov)" "$(number ft)" "$(number corp)"
    if [ -n "${KEEP:-}" ]; then
        rm -rf "$work/kept" && mkdir "$work/kept"
        # As few as reach every edge, however often; of them the longest, which reach most.
        "$fuzz" -set_cover_merge=1 -use_counters=0 -max_len=$stored_longest "$work/kept" "$stored" "$corpus" >>"$log" 2>&1
        (cd "$work/kept" && ls -S | tail -n +$((stored_most + 1)) | xargs -r rm --)
        rm -rf "$stored" && cp -r "$work/kept" "$stored"
    fi
    rmdir --ignore-fail-on-non-empty "$stored" "$crashes"
done
exit $broken

#!/usr/bin/env bash
# Shows that the example word_count counts every word exactly once, whatever happens to it:
# 300 MB or more of text, 30 times kill -9, the state deleted half-way, the changelog cut at random
# points behind its durable end; and compares with what coreutils count.
#
#   docs/examples/word_count_check.sh [WORK_DIR]
#
# Set TEXT=DIR to count the files of another directory than the HTML documentation of the Rust
# toolchain, SEED=N for other random choices, KILLS=N for another number of kills, BIN=DIR for
# binaries that are built already. Exits with 0 only if all counts are equal.
set -euo pipefail
export LC_ALL=C

cd "$(dirname "$0")/../.."
work=${1:-$(mktemp -d)}
kills=${KILLS:-30}
seed=${SEED:-1}
bytes_min=$((300 * 1000 * 1000))
# No single run takes longer than this many seconds.
run_max=${RUN_MAX:-300}
RANDOM=$seed
mkdir -p "$work"
work=$(cd "$work" && pwd)
echo "work in $work, seed $seed"

if [ -n "${BIN:-}" ]; then
    bin=$BIN
else
    cargo build --quiet --release --features cli --bin siltstone --example word_count
    bin=${CARGO_TARGET_DIR:-target}/release
fi
word_count=$bin/examples/word_count
siltstone=$bin/siltstone

fail() {
    echo "FAILED: $*"
    exit 1
}

# --- the text --------------------------------------------------------------------------------

text=${TEXT:-}
if [ -z "$text" ]; then
    text=$(rustc --print sysroot)/share/doc/rust/html
fi
size_of() { find "$1" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }'; }
if [ ! -d "$text" ] || [ "$(size_of "$text")" -lt "$bytes_min" ]; then
    # Without the toolchain's documentation: the sources of the dependencies, again and again.
    cargo fetch --quiet
    sources=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/ | cut -d' ' -f1)
    text=$work/text
    rm -rf "$text" && mkdir "$text"
    copy=0
    while [ "$(size_of "$text")" -lt "$bytes_min" ]; do
        copy=$((copy + 1))
        cp -r "$sources" "$text/$copy"
    done
fi
size=$(size_of "$text")
echo "text: $text, $(find "$text" -type f | wc -l) files, $((size / 1000000)) MB"

# --- what coreutils count --------------------------------------------------------------------

# grep ends each file's last line, so that the border of two files is one of words.
began=$SECONDS
find "$text" -type f -print0 | sort -z | xargs -0 grep -ha '' | tr -cs 'A-Za-z' '\n' |
    tr 'A-Z' 'a-z' | grep -v '^$' | sort -S 1G -T "$work" | uniq -c |
    awk '{ print $1 "\t" $2 }' > "$work/expected"
echo "coreutils: $(wc -l < "$work/expected") words in $((SECONDS - began)) s"

# --- runs ------------------------------------------------------------------------------------

state=$work/state
changelog=$work/changelog
rm -rf "$state" "$changelog"

count() { timeout "$run_max" "$word_count" --state "$state" --changelog "$changelog" "$@" "$text"; }

compare() {
    cmp "$work/expected" "$work/counted" || fail "$1: the counts differ"
    echo "equal: $1"
}

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

began=$(milliseconds)
count --dump > "$work/counted" 2> "$work/stderr" || fail "$(cat "$work/stderr")"
whole=$(($(milliseconds) - began))
compare "one run without a kill, $whole ms, $((size / 1000 / whole)) MB/s"
rm -rf "$state" "$changelog"

# The newest segment of the changelog, as far as it may be lost: cut somewhere behind what is
# known to be durable.
cut_changelog() {
    local segment end length at
    segment=$(find "$changelog" -name '*.log' 2> /dev/null | sort | tail -n 1)
    [ -n "$segment" ] || return 0
    end=$("$siltstone" dump "$segment" | sed -n 's/^durable end: byte \([0-9]*\) .*/\1/p')
    length=$(stat -c %s "$segment")
    # Half of the times something else has come behind, as blocks do that were never written.
    if [ $((RANDOM % 2)) = 0 ]; then
        head -c $((RANDOM % 5000)) /dev/urandom >> "$segment"
        length=$(stat -c %s "$segment")
    fi
    at=$((end + (RANDOM * 32768 + RANDOM) % (length - end + 1)))
    truncate -s "$at" "$segment"
    echo "    changelog cut at byte $at of $length, durable up to $end"
}

refused=0
finished=0
for kill in $(seq "$kills"); do
    # So that all runs together come about to the end; commits are small, to be many.
    pause=$((50 + RANDOM % (4 * whole / kills + 1)))
    "$word_count" --state "$state" --changelog "$changelog" --commit-bytes 2000000 "$text" \
        > /dev/null 2> "$work/stderr" &
    runner=$!
    sleep "$(printf '%d.%03d' $((pause / 1000)) $((pause % 1000)))"
    kill -KILL $runner 2> /dev/null || true
    status=0
    wait $runner 2> /dev/null || status=$?
    how="kill $kill after $pause ms"
    case $status in
    0) finished=$((finished + 1)) && echo "$how: was done already" ;;
    137) echo "$how: $(grep -a 'restored counts' "$work/stderr" || echo 'before the restore ended')" ;;
    *)
        # A cut may take a commit that was acknowledged, which no disk does that syncs. A state
        # that has seen it is refused, and nothing changed.
        grep -q 'ask for a rebuild' "$work/stderr" || fail "$how: $(cat "$work/stderr")"
        refused=$((refused + 1))
        rm -rf "$state"
        echo "$how: state ahead of the cut changelog, refused; state deleted"
        ;;
    esac
    if [ $((kill % 3)) = 0 ]; then
        cut_changelog
    fi
    if [ "$kill" = $((kills / 2)) ]; then
        rm -rf "$state"
        echo "    state deleted"
    fi
done

if ! count --dump > "$work/counted" 2> "$work/stderr"; then
    grep -q 'ask for a rebuild' "$work/stderr" || fail "$(cat "$work/stderr")"
    rm -rf "$state"
    count --dump > "$work/counted" 2> "$work/stderr" || fail "$(cat "$work/stderr")"
fi
sed 's/^/    /' "$work/stderr"
compare "$kills kills ($finished came too late), state deleted, changelog cut, $refused refused"

rm -rf "$state"
count --dump > "$work/counted" 2> "$work/stderr" || fail "$(cat "$work/stderr")"
sed 's/^/    /' "$work/stderr"
compare "state made again from the changelog alone"
"$siltstone" verify "$state"
echo "all counts are equal, in $SECONDS s"

#!/usr/bin/env bash
# Everything that is asked of a real card, in one command, and a dated report of it.
#
#   scripts/gpu_check.sh                  on a machine with Rust and a card: packs, then runs
#   scripts/gpu_check.sh pack DIR         on a machine with Rust: a folder for machines that have neither Rust nor a network
#   DIR/run.sh [--out FOLDER] [--quick] [--only PART,...]   there: needs the driver alone; uses python3 and compute-sanitizer
#                                         if they are there
#
# Parts: checks (15 s on an H100), memcheck (150 s at most), racecheck (60 s at most: four cases of each kernel), bench (about a
# minute: contenders take turns for 6 s at most). `sanitizer` is memcheck,racecheck; --quick is `--only checks`.
# Exit code: 0 all checks passed, 1 one failed or none ran, 3 no card.
#
# A session that is lent a card (15 minutes of it, 64 MiB up, nothing installed there) packs here and runs part by part:
#   scripts/gpu_check.sh pack target/gpu
#   run(command: "target/gpu/run.sh --quick --out $OUT", carry: ["target/gpu"], timeout_s: 120)
#   run(command: "target/gpu/run.sh --only bench,sanitizer --out $OUT", carry: ["target/gpu"], timeout_s: 400)
# and keeps report.md as benches/results/<date>-<card>/gpu.md. Every check has a limit of its own, so that what hangs fails alone.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

pack() {
    local dir=$1
    cd "$here/.." || exit 1
    . scripts/needs.sh
    need_cc && need_cxx && need_cargo && need_cmake
    set -e
    local parts
    parts=$(mktemp -d)
    mkdir -p "$parts/bin/kernels" "$dir"
    built() { # the executable of what cargo was told to build
        "$@" --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1
    }
    strip -o "$parts/bin/cauda" "$(built cargo build --quiet --release --bin cauda)"
    strip -o "$parts/bin/it" "$(built cargo test --quiet --release --no-run --test it)"
    strip -o "$parts/bin/peers" "$(built cargo bench --quiet --no-run --bench peers)"
    cp scripts/bench/gpu.py "$parts/gpu.py"
    { git describe --always --dirty 2>/dev/null || echo unknown; } >"$parts/commit"
    # Images for hosts that have only the driver. The older compiler runs beside more drivers.
    local nvrtc n
    if nvrtc=$(scripts/kernels_check.sh --where); then
        LD_LIBRARY_PATH="$nvrtc${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$parts/bin/cauda" kernels \
            --arch sm_75,sm_80,sm_90,sm_100 -o "$parts/bin/kernels" >/dev/null
    else
        echo "no NVRTC here: no images of kernels; the other machine must have it" >&2
    fi
    n=$(find "$parts/bin/kernels" -type f | wc -l)
    tar czf "$dir/parts.tar.gz" -C "$parts" .
    cp scripts/gpu_check.sh "$dir/run.sh"
    rm -rf "$parts"
    echo "$dir: $(du -sm "$dir" | cut -f1) MiB, $n images of kernels"
}

case "${1:-}" in
pack)
    [ $# -eq 2 ] || { echo "usage: $0 pack DIR" >&2; exit 2; }
    pack "$(mkdir -p "$2" && cd "$2" && pwd)"
    exit
    ;;
esac
if [ ! -f "$here/parts.tar.gz" ]; then
    dir=${CARGO_TARGET_DIR:-$here/../target}/gpu
    (pack "$(mkdir -p "$dir" && cd "$dir" && pwd)") || exit 1
    exec "$dir/run.sh" "$@"
fi

# --------------------------------------------------------------------------------------------------- on the machine
out=$here/out parts=checks,memcheck,racecheck,bench
usage() { echo "usage: $0 [--out FOLDER] [--quick] [--only checks|bench|memcheck|racecheck|sanitizer,...]" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
    --out) [ $# -gt 1 ] || usage; out=$2; shift ;;
    --quick) parts=checks ;;
    --only) [ $# -gt 1 ] || usage; parts=$2; shift ;;
    *) usage ;;
    esac
    shift
done
parts=${parts//sanitizer/memcheck,racecheck}
for part in ${parts//,/ }; do
    case $part in checks | bench | memcheck | racecheck) ;; *) usage ;; esac
done
runs() { case ,$parts, in *,$1,*) ;; *) return 1 ;; esac; }
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tar xzf "$here/parts.tar.gz" -C "$scratch" || exit 1
here=$scratch
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0} CAUDA_CACHE=${CAUDA_CACHE:-$scratch/cache}
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}:/usr/local/cuda/bin
report=$out/report.md
rm -f "$out/failed.log"
: >"$report"
tell() { printf '%s\n' "$*" | tee -a "$report"; }

# The loader of the driver looks for it by name; some hosts have it in a folder that the loader does not know.
if ! ldconfig -p 2>/dev/null | grep -q libcuda.so; then
    for folder in /usr/local/nvidia/lib64 /usr/lib/wsl/lib; do
        [ -e "$folder/libcuda.so.1" ] && export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
    done
fi

"$here/bin/cauda" doctor >"$scratch/doctor" 2>&1
doctor=$?
card=$(sed -n 's/^CUDA cards *ok *//p' "$scratch/doctor")
if ! grep -q '^CUDA context' "$scratch/doctor"; then
    tell "NO CARD: ${card:-cauda doctor did not run}"
    cat "$scratch/doctor" >&2
    exit 3
fi

tell "# A card, checked $(date -u '+%Y-%m-%d %H:%M UTC')"
tell ""
tell "Commit $(cat "$here/commit"). $(uname -srm), $(nproc) processors. $card."
smi=$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem --format=csv,noheader 2>/dev/null) && tell "" && tell "nvidia-smi: $smi."
case $card in *Emulated*) tell "" && tell "**The card is emulated: this run says that the checks work, nothing of a card, and no figure means anything.**" ;; esac
tell ""
tell '```text'
tell "$(cat "$scratch/doctor")"
tell '```'

passed=0 failed=0 cases=0
details=$scratch/details
: >"$details"
tell ""
tell "| check | result | cases | s |"
tell "| --- | --- | --- | --- |"
row() { # name, result, cases, seconds
    tell "| $1 | $2 | $3 | $4 |"
    case $2 in ok) passed=$((passed + 1)) cases=$((cases + $3)) ;; FAIL*) failed=$((failed + 1)) ;; esac
}
if [ $doctor -eq 0 ]; then row "doctor: opens the card, loads every kernel" ok 0 -; else row "doctor" FAIL 0 -; fi

# A test of the packed binary that runs its body on the card of this machine, and leaves what it found: a test that is not
# there leaves nothing. Its first word is the number of cases, where it has one.
inside() { # title, limit in seconds, test, command before it
    local title=$1 limit=$2 test=$3 begin=$SECONDS said=$scratch/said log=$scratch/log n
    shift 3
    rm -f "$said"
    CAUDA_TEST_INSIDE=$said timeout "$limit" "$@" "$here/bin/it" --exact "$test" --nocapture >"$log" 2>&1
    local code=$?
    if [ $code -eq 0 ] && [ -f "$said" ]; then
        n=$(sed -n '1s/^\([0-9][0-9]*\) .*/\1/p' "$said")
        row "$title" ok "${n:-1}" $((SECONDS - begin))
        [ -s "$said" ] && [ $# -eq 0 ] && { printf '\n## %s\n\n' "$title"; cat "$said"; } >>"$details"
    else
        [ $code -eq 0 ] && code="it did not run"
        [ "$code" = 124 ] && code="took more than $limit s"
        row "$title" "FAIL ($code)" 0 $((SECONDS - begin))
        { printf '\n## %s: FAIL\n\n```text\n' "$title"; grep -v '^ *at \|^ *[0-9]*: ' "$log" | head -40; printf '```\n'; } >>"$details"
        { printf '\n=== %s\n' "$title"; cat "$log"; } >>"$out/failed.log"
    fi
}
if runs checks; then
    inside "kernels against their operators, through the driver" 120 check_a_card::kernels_give_through_the_driver_what_operators_give
    inside "ESPIRiT maps against the CPU" 60 check_a_card::espirit_maps_of_a_card_are_those_of_the_cpu
    inside "frames of real size against the CPU" 150 check_a_card::frames_of_real_size_are_those_of_the_cpu
    inside "SENSE, small frames of every kind" 60 recon_on_a_card::sense_on_a_card_is_sense_on_the_cpu
    inside "GRAPPA with known weights" 60 recon_on_a_card::grappa_on_a_card_is_grappa_on_the_cpu_for_frames_that_share_weights
    inside "what has no kernels is refused, or done by the CPU" 30 recon_on_a_card::what_a_card_has_no_kernels_for_is_refused_if_it_must_and_planned_for_the_cpu_if_not
    inside "a full card: the frame is refused where a card is required, else done by the CPU" 60 check_a_card::a_full_card_refuses_the_frame_or_leaves_it_to_the_cpu
    inside "memory over frames and openings" 120 check_a_card::memory_of_the_card_stays_flat_over_frames_and_openings
    inside "replays of a graph" 60 check_a_card::a_graph_is_replayed_ten_thousand_times
    inside "threads share a context" 30 use_a_card::threads_share_a_context
    inside "a graph fed from staging in turns" 30 use_a_card::a_graph_replays_a_hundred_frames_from_staging_that_is_used_in_turns
    inside "launches that do not fit" 30 use_a_card::launches_that_do_not_fit_are_refused_before_the_driver_is_asked
else
    row "checks" "not run: --only $parts" 0 -
fi

sanitizer=$(command -v compute-sanitizer)
for tool in memcheck racecheck; do
    # Racecheck looks at every word of shared memory: of each kernel, four cases at even distances in the list.
    few=
    [ "$tool" = racecheck ] && few=4
    title="compute-sanitizer $tool, ${few:-all} cases of ${few:+each of }the kernels"
    if ! runs $tool; then row "$title" "not run: --only $parts" 0 -
    elif [ -z "$sanitizer" ]; then row "$title" "not run: compute-sanitizer is not here" 0 -
    else
        inside "$title" $((few ? 60 : 150)) check_a_card::kernels_give_through_the_driver_what_operators_give \
            env ${few:+CAUDA_TEST_CASES=$few} "$sanitizer" --tool "$tool" --error-exitcode 9
    fi
done
row "the n-th allocation, launch or copy fails; a kernel dies" "not here: on the emulated card (\`cargo test\`), which fails when asked" 0 -

cat "$details" >>"$report"
measured=
if ! runs bench; then tell "" && tell "Not measured: --only $parts."
elif command -v python3 >/dev/null 2>&1 && python3 -c 'import numpy' 2>/dev/null; then
    tiny=
    case $card in *Emulated*) tiny=--tiny ;; esac
    # What takes turns stops in time for all of it to end in about a minute.
    timeout 150 python3 "$here/gpu.py" $tiny --seconds 6 --peers "$here/bin/peers" --cauda "$here/bin/cauda" >"$out/bench.md" 2>"$out/bench.log" && measured=1 || { failed=$((failed + 1)); tell "" && tell "FAIL: the bench ended early (bench.log)"; }
    tell ""
    tell "$(cat "$out/bench.md")"
else
    tell ""
    tell "Not measured: python3 with numpy is not here."
fi

tell ""
if { [ "$cases" -eq 0 ] || [ "$passed" -lt 2 ]; } && { [ "$parts" != bench ] || [ -z "$measured" ]; }; then
    tell "**FAILED: no check ran on the card.**"
    exit 1
fi
tell "**$passed checks passed, $failed failed; $cases cases on the card.**"
[ "$failed" -eq 0 ]

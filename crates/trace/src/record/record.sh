#!/bin/sh
# Records what a kernel does with executable memory, for `textbed replay`.
# Printed by `textbed record` for @ARCH@, kernel @VERSION@.
#
# Usage: sh record.sh [-o DIR] [-b KIB] [-t SECONDS] [-n] [--] [COMMAND [ARGUMENT]...]
#
#   -o DIR      where the log and its side files go; must be empty (default textbed-log)
#   -b KIB      trace buffer of each CPU (default: 1/16 of free memory over all CPUs, 64 to 16384)
#   -t SECONDS  how long to record; without it: as long as COMMAND runs, or until interrupted
#   -n          try every probe, say what is missing, record nothing
#
# Needs root, and a kernel with CONFIG_KPROBE_EVENTS or CONFIG_FPROBE_EVENTS. It uses a trace
# instance and probes of its own ("textbed") and takes them away again at the end, whatever ends it;
# kptr_restrict is 1 meanwhile, so that addresses in side files are real. The log is bounded only by
# the disk; what the buffer could not hold is noted in the log.
#
# Exit status: that of COMMAND, else 0; 2 for wrong arguments, 3 if this kernel cannot be recorded.
set -u

want_machine='@MACHINE@'
dir=textbed-log
kib=
seconds=
try_only=

say() { printf 'record: %s\n' "$*" >&2; }
give_up() {
    say "$*"
    exit 3
}
usage() {
    say "$1"
    say 'usage: sh record.sh [-o DIR] [-b KIB] [-t SECONDS] [-n] [--] [COMMAND [ARGUMENT]...]'
    exit 2
}
number() {
    case $2 in
    '' | *[!0-9]*) usage "$1 takes a whole number, not '$2'" ;;
    esac
}

while getopts o:b:t:n option; do
    case $option in
    o) dir=$OPTARG ;;
    b) number -b "$OPTARG" && kib=$OPTARG ;;
    t) number -t "$OPTARG" && seconds=$OPTARG ;;
    n) try_only=yes ;;
    *) usage 'unknown option' ;;
    esac
done
shift $((OPTIND - 1))

[ "$(id -u)" -eq 0 ] || give_up 'only root may set probes'
[ "$(uname -m)" = "$want_machine" ] ||
    give_up "this script is for $want_machine; this machine is $(uname -m)"
if [ -e "$dir" ] && [ -n "$(ls -A "$dir" 2>/dev/null)" ]; then
    usage "$dir is not empty"
fi

# --- what is changed here, and how it is changed back -------------------------------------------

mounted=
instance=
probes_made=
kptr=
reader=
worker=

# shellcheck disable=SC2317 # called by traps
restore() {
    trap '' INT TERM HUP
    [ -z "$worker" ] || kill "$worker" 2>/dev/null
    [ -z "$reader" ] || kill "$reader" 2>/dev/null
    wait 2>/dev/null
    if [ -n "$instance" ]; then
        echo 0 >"$instance/tracing_on"
        [ -d "$instance/events/textbed" ] && echo 0 >"$instance/events/textbed/enable"
        rmdir "$instance" 2>/dev/null || say "cannot remove the trace instance $instance"
    fi
    if [ -n "$probes_made" ]; then
        for file in kprobe_events dynamic_events; do
            [ -f "$tracefs/$file" ] || continue
            # A definition begins with its kind, then ":textbed/NAME"; only its own are taken away.
            sed -n 's/^[a-z]*[0-9]*:textbed\/\([^ ]*\).*/\1/p' "$tracefs/$file" |
                while read -r name; do
                    echo "-:textbed/$name" >>"$tracefs/$file" 2>/dev/null ||
                        say "cannot remove the probe $name"
                done
        done
    fi
    [ -z "$kptr" ] || echo "$kptr" >/proc/sys/kernel/kptr_restrict
    [ -z "$mounted" ] || umount "$mounted"
}
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

tracefs=
for place in /sys/kernel/tracing /sys/kernel/debug/tracing; do
    if [ -f "$place/tracing_on" ]; then
        tracefs=$place
        break
    fi
done
if [ -z "$tracefs" ]; then
    mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null ||
        give_up 'no tracefs: is CONFIG_FTRACE set?'
    tracefs=/sys/kernel/tracing
    mounted=$tracefs
fi
if [ ! -f "$tracefs/kprobe_events" ] && [ ! -f "$tracefs/dynamic_events" ]; then
    give_up 'this kernel has no probe events: CONFIG_KPROBE_EVENTS or CONFIG_FPROBE_EVENTS is needed'
fi
[ -r /proc/kallsyms ] || give_up 'no /proc/kallsyms: CONFIG_KALLSYMS is needed'
[ ! -d "$tracefs/instances/textbed" ] ||
    give_up "$tracefs/instances/textbed is there: another recording, or one that was killed"
mkdir "$tracefs/instances/textbed" || give_up 'cannot make a trace instance'
instance=$tracefs/instances/textbed
mkdir -p "$dir" || exit 2

if [ -f /proc/sys/kernel/kptr_restrict ]; then
    kptr=$(cat /proc/sys/kernel/kptr_restrict)
    echo 1 >/proc/sys/kernel/kptr_restrict
fi

# --- probes ---------------------------------------------------------------------------------------

# FUNCTION|PURPOSE|RETURN|FIELDS
probe_list() {
    cat <<'PROBES'
@PROBES@
PROBES
}

# SYSTEM/EVENT|PURPOSE|FUNCTION while which it is recorded (none: always)
tracepoint_list() {
    cat <<'TRACEPOINTS'
@TRACEPOINTS@
TRACEPOINTS
}

# The symbols of the list that this kernel has, also under names that a compiler made of them
# (NAME.llvm.123 is the function; NAME.isra.0, .constprop.0 and .part.0 take other arguments).
probe_list | cut -d '|' -f 1 >"$dir/.wanted"
awk 'NR == FNR { wanted[$1]; next }
     { name = $3; base = name; sub(/\..*/, "", base)
       if (base in wanted && ($2 == "t" || $2 == "T" || $2 == "w" || $2 == "W"))
           print base, name }' "$dir/.wanted" /proc/kallsyms | sort -u >"$dir/.symbols"

# define KIND NAME SYMBOL FIELDS: by kprobe, else by fprobe.  $kind says which it was.
define() {
    case $1 in
    entry) k=p f='' ;;
    return) k=r64 f='%return' ;;
    esac
    if [ -f "$tracefs/kprobe_events" ] &&
        echo "$k:textbed/$2 $3 $4" 2>/dev/null >>"$tracefs/kprobe_events"; then
        echo "$k:textbed/$2 $3 $4" >>"$dir/kprobe_events"
        return 0
    fi
    if [ -f "$tracefs/dynamic_events" ] &&
        echo "f:textbed/$2 $3$f $4" 2>/dev/null >>"$tracefs/dynamic_events"; then
        echo "f:textbed/$2 $3$f $4" >>"$dir/kprobe_events"
        return 0
    fi
    return 1
}

probes_made=yes
: >"$dir/kprobe_events"
: >"$dir/missing"
: >"$dir/.set"
probe_list | while IFS='|' read -r name purpose returns fields; do
    symbol=$(awk -v n="$name" '$1 == n && ($2 == n || index($2, n ".llvm.") == 1) { print $2; exit }' \
        "$dir/.symbols")
    if [ -z "$symbol" ]; then
        other=$(awk -v n="$name" '$1 == n { print $2; exit }' "$dir/.symbols")
        if [ -n "$other" ]; then
            echo "$name|$purpose|only $other is there, with other arguments" >>"$dir/missing"
        else
            echo "$name|$purpose|no such symbol" >>"$dir/missing"
        fi
        continue
    fi
    if define entry "$name" "$symbol" "$fields"; then
        echo "$name|$purpose" >>"$dir/.set"
    else
        # Without arguments it is still worth something as context.
        if [ -n "$fields" ] && define entry "$name" "$symbol" ''; then
            echo "$name|$purpose|its arguments cannot be read here" >>"$dir/missing"
        else
            echo "$name|$purpose|the kernel does not let it be probed" >>"$dir/missing"
        fi
    fi
    # Newer kernels know which functions return nothing, and refuse $retval there.
    if [ "$returns" = yes ] && ! define return "${name}__ret" "$symbol" "ret=\$retval:x64" &&
        ! define return "${name}__ret" "$symbol" ''; then
        echo "$name|$purpose|its return cannot be probed" >>"$dir/missing"
    fi
done
rm -f "$dir/.wanted" "$dir/.symbols"

made=$(wc -l <"$dir/kprobe_events")
tried=$(probe_list | wc -l)
say "$made probes set at entry or return of $tried functions"
awk -F '|' '{ printf "record:   missing %-34s (%s) %s\n", $1, $2, $3 }' "$dir/missing" >&2
while IFS='|' read -r purpose what; do
    grep -q "|$purpose\$" "$dir/.set" || say "  the log will not show $what"
done <<'PURPOSES'
@PURPOSES@
PURPOSES
rm -f "$dir/.set"
[ "$made" -gt 0 ] || give_up 'no probe could be set'
if [ -n "$try_only" ]; then
    exit 0
fi

# --- the log --------------------------------------------------------------------------------------

if [ -z "$kib" ]; then
    cpus=$(grep -c '^processor' /proc/cpuinfo)
    [ "$cpus" -gt 0 ] || cpus=1
    kib=$(awk -v cpus="$cpus" '/^MemAvailable:/ { n = int($2 / 16 / cpus) }
        END { print (n < 64 ? 64 : (n > 16384 ? 16384 : n)) }' /proc/meminfo)
fi
echo "$kib" >"$instance/buffer_size_kb" || give_up "no memory for buffers of $kib KiB a CPU"
echo mono >"$instance/trace_clock"

# What was there before: the state that the log starts from.
snapshot() {
    for file in vmallocinfo modules iomem; do
        cat "/proc/$file" >"$dir/$file.$1" 2>/dev/null
    done
}
cat /proc/version >"$dir/version"
cat /proc/cmdline >"$dir/cmdline"
cat /proc/kallsyms >"$dir/kallsyms.live"
cat /sys/devices/system/cpu/online >"$dir/cpus" 2>/dev/null
release=$(uname -r)
if [ -f /proc/config.gz ]; then
    cp /proc/config.gz "$dir/config-$release.gz"
elif [ -f "/boot/config-$release" ]; then
    cp "/boot/config-$release" "$dir/config-$release"
fi
snapshot pre

# The header (it says how many CPUs there are, and names the columns) is in the file only.
grep '^#' "$instance/trace" >"$dir/trace.txt"
cat "$instance/trace_pipe" >>"$dir/trace.txt" &
reader=$!
echo 1 >"$instance/tracing_on"
mark() { echo "textbed: $*" >"$instance/trace_marker"; }
mark "recording starts, textbed record @VERSION@ @ARCH@"
tracepoint_list | while IFS='|' read -r event purpose within; do
    if [ -n "$within" ]; then
        # Its entry switches the event on, its return off again.
        probe=$instance/events/textbed/$within
        name=${event%/*}:${event#*/}
        { [ -f "$instance/events/$event/enable" ] && [ -f "$probe/trigger" ] &&
            echo "disable_event:$name" >"${probe}__ret/trigger" &&
            echo "enable_event:$name" >"$probe/trigger"; } 2>/dev/null ||
            echo "${event#*/}|$purpose|cannot be recorded within $within alone" >>"$dir/missing"
    elif [ -f "$instance/events/$event/enable" ]; then
        echo 1 >"$instance/events/$event/enable"
    else
        echo "${event#*/}|$purpose|no such tracepoint" >>"$dir/missing"
    fi
done
echo 1 >"$instance/events/textbed/enable" || give_up 'the probes cannot be enabled'
mark 'all probes enabled'

status=0
if [ $# -gt 0 ]; then
    say "recording while this runs: $*"
    "$@" &
    worker=$!
    if [ -n "$seconds" ]; then
        (sleep "$seconds" && kill "$worker" 2>/dev/null) &
        timer=$!
    fi
    wait "$worker"
    status=$?
    worker=
    [ -z "$seconds" ] || kill "$timer" 2>/dev/null
elif [ -n "$seconds" ]; then
    say "recording for $seconds s"
    sleep "$seconds"
else
    say 'recording until interrupted (Ctrl-C)'
    trap 'stop=yes' INT TERM
    stop=
    while [ -z "$stop" ]; do sleep 1; done
    trap 'exit 130' INT
    trap 'exit 143' TERM
fi

mark 'recording ends'
echo 0 >"$instance/tracing_on"
# The reader has the rest when every buffer is empty.
waited=0
while [ "$waited" -lt 60 ]; do
    left=$(cat "$instance"/per_cpu/cpu*/stats | awk '/^entries:/ { n += $2 } END { print n + 0 }')
    [ "$left" -gt 0 ] || break
    sleep 1
    waited=$((waited + 1))
done
sleep 1
kill "$reader" 2>/dev/null
wait "$reader" 2>/dev/null
reader=
snapshot post
[ ! -f "$tracefs/kprobe_profile" ] ||
    cat "$tracefs/kprobe_profile" >"$dir/kprobe_profile.post"
awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+\.[0-9]+:$/) {
           name = $(i + 1); sub(/:$/, "", name); count[name]++; break } }
     END { for (name in count) printf "%d\t%s\n", count[name], name }' "$dir/trace.txt" |
    sort -rn >"$dir/event-counts.tsv"
lost=$(cat "$instance"/per_cpu/cpu*/stats |
    awk '/^(overrun|dropped events):/ { n += $NF } END { print n + 0 }')
say "$(wc -l <"$dir/trace.txt") lines in $dir/trace.txt, $lost events lost"
[ "$lost" -eq 0 ] || say 'record again with a larger buffer (-b)'
say "next: textbed replay $dir/trace.txt"
exit "$status"

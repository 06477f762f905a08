#!/bin/sh
# A `virsh` for two hosts, of which the source takes $DELAY s to connect and for each command. What they know is in files.
echo "$*" >> "$HERE/processes"
UUID=6695eb01-f6a4-8304-79aa-97f2502e193f
host="$HERE/here"
case "$2" in qemu+ssh:*) host="$HERE/there" DELAY=0 ;; esac
shift 2
case "$1" in *event) exec sleep 1000 ;; esac
sleep "$DELAY"

word() { # the value of an option
    option="$1"; shift
    for argument; do
        case "$argument" in "$option="*) printf '%s' "${argument#*=}" ;; esac
    done
}

device() { # reads a device's XML, and where it is kept
    xml=$(cat)
    alias=$(printf '%s' "$xml" | sed -n "s/.*<alias name='\([^']*\)'.*/\1/p")
    file="$host/devices/${alias:-without}"
}

name() { # the domain's, which it may have got by a migration
    if [ -e "$host/name" ]; then cat "$host/name"; else printf g1; fi
}

refuse() {
    printf 'error: %s\n' "$1" >&2
    return 1
}

answer() {
    printf '%s\n' "$1" >> "$HERE/commands"
    sleep "$DELAY"
    case "$1" in
    list) [ ! -e "$host/state" ] || printf '%s %s\n' "$UUID" "$(name)"; return ;;
    nodedev*) printf '<device/>'; return ;;
    snapshot*) return ;;
    esac
    wanted=$(word --domain "$@")
    case "$wanted" in
    "$UUID" | "$(name)") ;;
    *) refuse "failed to get domain '$wanted'"; return 1 ;;
    esac
    [ -e "$host/state" ] || { refuse "failed to get domain '$wanted'"; return 1; }
    case "$1" in
    domstate) cat "$host/state" ;;
    dominfo) printf 'State:          running\nPersistent:     no\n' ;;
    domjobinfo) printf 'Job type:         0\n' ;;
    domstats)
        number=0
        for tap in ${TAPS:-}; do
            printf 'net.%s.name=%s\n' "$number" "$tap"
            number=$((number + 1))
        done
        ;;
    dumpxml)
        printf "<domain id='1'><name>$(name)</name><uuid>$UUID</uuid><metadata>"
        cat "$host"/metadata/* 2>/dev/null
        printf '</metadata><devices>'
        cat "$host"/devices/*
        printf '</devices></domain>'
        ;;
    metadata)
        uri=$(word --uri "$@")
        file="$host/metadata/$(printf '%s' "$uri" | tr '/:' '__')"
        text=$(word --set "$@")
        if [ -z "$text" ]; then rm -f "$file"; else
            printf '%s' "$text" | sed "s|^<\([a-z]*\)>|<\1 xmlns='$uri'>|" > "$host/new"
            mv "$host/new" "$file"
        fi
        ;;
    detach-device)
        [ -z "$NO_STDIN" ] || { refuse "Failed to open file '/dev/stdin': No such file or directory"; return 1; }
        device; rm -f "$file"
        ;;
    attach-device)
        device
        [ "$alias" != "$NEVER" ] || { refuse 'vfio: the group is not viable'; return 1; }
        printf '%s' "$xml" > "$host/new"
        mv "$host/new" "$file"
        ;;
    migrate)
        if grep -q hostdev "$host"/devices/*; then
            refuse 'cannot migrate a domain with <hostdev>'
            return 1
        fi
        mkdir -p "$HERE/there"
        mv "$host/devices" "$host/metadata" "$HERE/there"
        renamed=$(word --dname "$@")
        [ -z "$renamed" ] || printf '%s' "$renamed" > "$HERE/there/name"
        mv "$host/state" "$HERE/there/state"
        ;;
    *) refuse "unexpected: $*" ;;
    esac
}

if [ "$1" != --quiet ]; then
    answer "$@"
    exit
fi
[ -z "$NO_SESSION" ] || exit 1
# It reads commands, as virsh does without one.
echo() { printf '%s' "$*"; }
for command in domstate domstats dominfo domjobinfo dumpxml list nodedev snapshot; do
    eval "$command() { answer $command \"\$@\"; }"
done
while IFS= read -r line; do
    eval "$(printf '%s' "$line" | sed 's/nodedev-dumpxml/nodedev/; s/snapshot-list/snapshot/')"
done

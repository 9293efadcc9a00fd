#!/bin/sh
# An example of a hook program (exec in [hastd]). hastd runs it, one call at a time
# for each resource, with one of:
#
#	role NAME OLD NEW
#	connect|disconnect|syncstart|syncdone|syncintr|split-brain NAME
#
# This one writes to the system log and mails root when a person is needed. It must
# end soon: hastd stops it after a time limit, and what comes next waits for it.
set -eu

event=$1
name=$2

case $event in
role)
	logger -t hast-hook "$name: $3 became $4"
	;;
split-brain)
	logger -t hast-hook -p daemon.crit "$name: split-brain"
	if command -v mail >/dev/null; then
		hastctl list "$name" 2>&1 | mail -s "split-brain of $name on $(hostname)" root
	fi
	;;
*)
	logger -t hast-hook "$name: $event"
	;;
esac

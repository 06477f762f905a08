//! What the second review found, and parts of the first one's findings that had no entry of their own.

use super::table::{Edit, Finding, IN_A_FULL_GUEST, OF_THE_HOST};

const OF_THE_GUEST: Finding = Finding {
    package: "tandem-guest",
    ..OF_THE_HOST
};
const WITH_A_MANAGER: Finding = Finding {
    of: &["--test", "service_manager"],
    ..OF_THE_HOST
};
const OF_THE_UNITS: Finding = Finding {
    package: "tandem-lab",
    test: "full_guest::exposure::tests::each_service_has_a_bound_and_those_that_last_a_watchdog",
    ..OF_THE_HOST
};

pub(super) const SECOND: &[Finding] = &[
    // Whoever reached the path unit's own limit had it given up.
    Finding {
        id: "M4",
        test: "the_host_hands_a_bond_to_a_guest_with_network_manager",
        edits: &[Edit {
            file: "helper/systemd/tandem-refresh.path",
            mended: "TriggerLimitIntervalSec=0\n",
            taken_out: "",
        }],
        says: "is given up by TriggerLimitIntervalUSec",
        ..IN_A_FULL_GUEST
    },
    // What one domain's XML takes, all others waited for.
    Finding {
        id: "H2",
        test: "libvirt::parse::tests::the_thread_that_serves_everybody_reads_nothing",
        edits: &[Edit {
            file: "helper/host/src/libvirt/parse.rs",
            mended: "    let done = tokio::task::spawn_blocking(move || {",
            taken_out: "    let done = tokio::spawn(async move {",
        }],
        ..OF_THE_HOST
    },
    // A key that only a newer host knows had all of them refused, and the host wrote every one.
    Finding {
        id: "H3",
        of: &["--test", "channel"],
        test: "versions::what_a_later_host_says_besides_is_passed_over_and_told",
        edits: &[Edit {
            file: "helper/core/src/model/policy.rs",
            mended: "pub struct BondPolicy {",
            taken_out: "#[serde(deny_unknown_fields)]\npub struct BondPolicy {",
        }],
        ..OF_THE_GUEST
    },
    Finding {
        id: "H3",
        package: "tandem-wire",
        of: &["--test", "versions"],
        test: "of_a_policy_only_what_is_not_the_default_is_written",
        edits: &[Edit {
            file: "helper/wire/src/message.rs",
            mended: "    map.retain(|key, value| defaults.get(key) != Some(value));\n",
            taken_out: "",
        }],
        ..OF_THE_HOST
    },
    // Another version of the messages was refused, whatever else the guest spoke.
    Finding {
        id: "H3",
        test: "agent::tests::versions::a_version_of_the_messages_is_agreed_on_or_both_are_named",
        edits: &[Edit {
            file: "helper/wire/src/reply.rs",
            mended: "agree(self.protocols.unwrap_or(only), host)",
            taken_out: "agree(only, host)",
        }],
        ..OF_THE_HOST
    },
    // A NIC's name was an option to the program that udev's rule runs.
    Finding {
        id: "M1",
        test: "cli::tests::a_nics_name_is_no_option_of_udevs_program",
        edits: &[Edit {
            file: "udev-rules/10-tandem-unmanaged.rules",
            mended: "tandem udev -- $name",
            taken_out: "tandem udev $name",
        }],
        ..OF_THE_GUEST
    },
    // Root's small unit waited for as long as a pipe did.
    Finding {
        id: "M3",
        edits: &[Edit {
            file: "helper/systemd/tandem-refresh.service",
            mended: "TimeoutStartSec=2min\n",
            taken_out: "",
        }],
        ..OF_THE_UNITS
    },
    // Others could change what root writes.
    Finding {
        id: "M6",
        test: "files::tests::a_folder_that_others_may_write_is_refused",
        edits: &[Edit {
            file: "helper/host/src/files.rs",
            mended: "    if mode & others != 0 && mode & sticky == 0 {",
            taken_out: "    if mode & others != 0 && mode & sticky == 0 && path.is_file() {",
        }],
        ..OF_THE_HOST
    },
    // Each guest could have a megabyte kept for a line that it never ended.
    Finding {
        id: "M7",
        test: "agent::line_stream::tests::what_many_guests_begin_and_do_not_end_is_bounded",
        edits: &[Edit {
            file: "helper/host/src/agent/line_stream.rs",
            mended: "            if !self.begun.hold(held) {",
            taken_out: "            if !self.begun.hold(0) {",
        }],
        ..OF_THE_HOST
    },
    Finding {
        id: "M7",
        test: "agent::line_stream::tests::a_line_that_does_not_end_is_passed_over",
        edits: &[Edit {
            file: "helper/host/src/agent/line_stream.rs",
            mended: "timeout_at(began + LINE, read)",
            taken_out: "timeout_at(began + LINE * 1_000, read)",
        }],
        ..OF_THE_HOST
    },
    // `serve` said nothing to its manager, and might take all memory.
    Finding {
        id: "M7",
        test: "the_manager_hears_that_serve_began_and_that_its_loop_turns",
        edits: &[Edit {
            file: "helper/host/src/daemon/manager.rs",
            mended: "        tell(NotifyState::Ready);\n",
            taken_out: "",
        }],
        ..WITH_A_MANAGER
    },
    Finding {
        id: "M7",
        test: "the_manager_hears_that_serve_began_and_that_its_loop_turns",
        edits: &[Edit {
            file: "helper/host/src/daemon/manager.rs",
            mended: "            tell(NotifyState::Watchdog);\n",
            taken_out: "",
        }],
        ..WITH_A_MANAGER
    },
    Finding {
        id: "M7",
        edits: &[Edit {
            file: "helper/systemd/tandem-host.service",
            mended: "WatchdogSec=30s\n",
            taken_out: "",
        }],
        ..OF_THE_UNITS
    },
    Finding {
        id: "M7",
        edits: &[Edit {
            file: "helper/systemd/tandem-host.service",
            mended: "MemoryMax=1G\n",
            taken_out: "",
        }],
        ..OF_THE_UNITS
    },
    // The small units reached more than they need.
    Finding {
        id: "M8",
        test: "beside_network_manager",
        edits: &[Edit {
            file: "helper/systemd/tandem-nics.service",
            mended: "SystemCallFilter=~@privileged @resources\n",
            taken_out: "SystemCallFilter=~@resources\n",
        }],
        says: "docs/trust.md tells",
        ..IN_A_FULL_GUEST
    },
    Finding {
        id: "M8",
        test: "beside_network_manager",
        edits: &[Edit {
            file: "helper/systemd/tandem-refresh.service",
            mended: "PrivateDevices=yes\n",
            taken_out: "",
        }],
        says: "docs/trust.md tells",
        ..IN_A_FULL_GUEST
    },
    // What sets virsh's output reached it, and one that closed its output was waited for.
    Finding {
        id: "L4",
        test: "what_would_change_the_output_of_virsh_does_not_reach_it",
        edits: &[Edit {
            file: "helper/host/src/libvirt/run.rs",
            mended: "            command.env_remove(name);\n",
            taken_out: "            let _ = name;\n",
        }],
        ..WITH_A_MANAGER
    },
    Finding {
        id: "L4",
        test: "libvirt::tests::processes::a_source_of_events_that_closed_its_output_is_not_waited_for",
        edits: &[Edit {
            file: "helper/host/src/libvirt/watch.rs",
            mended: "child.wait(connection.limit.min(END))",
            taken_out: "child.wait(END * 1000)",
        }],
        ..OF_THE_HOST
    },
    // Every user of a guest could hold root's lock.
    Finding {
        id: "D3",
        test: "managers::network_manager::tests::the_automatic_profile_becomes_the_bonds",
        edits: &[Edit {
            file: "helper/src/managers/network_manager/profile_files.rs",
            mended: "    file.set_permissions(fs::Permissions::from_mode(0o600))?;\n",
            taken_out: "",
        }],
        ..OF_THE_GUEST
    },
    // Whoever wrote a domain's metadata began the service's back-off anew, and filled its log.
    Finding {
        id: "D4",
        test: "daemon::replug::tests::another_record_is_no_new_chance_and_no_new_line",
        edits: &[Edit {
            file: "helper/host/src/daemon/replug.rs",
            mended: "Some(tried) => (tried + self.wait).max(now + FIRST),",
            taken_out: "Some(tried) => tried.max(now + FIRST),",
        }],
        ..OF_THE_HOST
    },
    // Root connected to whatever the service's user had put there, and repeated its words.
    Finding {
        id: "D5",
        test: "channel::unix::tests::a_link_a_second_name_or_a_file_is_not_connected_to",
        edits: &[Edit {
            file: "helper/src/channel/unix.rs",
            mended: "OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC",
            taken_out: "OFlags::PATH | OFlags::CLOEXEC",
        }],
        ..OF_THE_GUEST
    },
    Finding {
        id: "D5",
        test: "client::tests::what_the_service_says_harms_no_terminal",
        edits: &[Edit {
            file: "helper/src/client.rs",
            mended: "Value::String(text) => *text = shortened(text, MAX_TEXT),",
            taken_out: "Value::String(text) => drop(shortened(text, MAX_TEXT)),",
        }],
        ..OF_THE_GUEST
    },
    Finding {
        id: "D5",
        test: "nic_watch::tests::what_the_service_says_of_a_bond_is_a_short_line",
        edits: &[Edit {
            file: "helper/src/nic_watch/mod.rs",
            mended: "    Some(shortened(&said, MAX_WORDS))",
            taken_out: "    Some(shortened(&said, MAX_WORDS * 100))",
        }],
        ..OF_THE_GUEST
    },
];

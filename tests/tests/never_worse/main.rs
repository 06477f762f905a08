//! Whatever is wrong with Tandem, the guest has the network that it would have without it: Debian 13 with
//! systemd-networkd, set up by nothing but the guide's commands, and then broken on purpose.

mod guest;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guest::{Broken, KILLED, Suffers};
use tandem_core::Status;
use tandem_core::status::BondState;
use tandem_lab::Lab;
use tandem_lab::full_guest::machine::{Guest, WAIT_LIMIT};
use tandem_lab::full_guest::systemd;
use tandem_lab::tandem::STEP_LIMIT;

/// How much later than without Tandem the guest may have its network, by its own clock.
const LATER: Duration = Duration::from_secs(30);
const UNIT: &str = "tandem.service";
const WATCH: &str = "tandem-nics.service";
const REFRESH: &str = "tandem-refresh.service";
/// What a watch that is killed once may cost: it is started again after 5 s, and waits anew.
const WATCH_AGAIN: Duration = Duration::from_secs(15);
/// Set by the long suite: the rarer ones too, and a boot for what others are shown without one.
const EVERYTHING: &str = "TANDEM_NEVER_WORSE_EVERYTHING";

/// What is said of it.
struct Said {
    /// The finding of `tandem check` that is fatal, and words of `tandem status`; nothing where no program is left
    /// to be asked.
    asked: Option<(&'static str, &'static str)>,
    /// Words of `journalctl -u tandem`; nothing where nobody wants the service.
    journal: Option<&'static str>,
}

impl Broken {
    /// What befalls a guest most likely.
    const USUAL: [Self; 4] = [
        Self::Typo,
        Self::Blacklisted,
        Self::NoUser,
        Self::CrashesAlways,
    ];
    const RARE: [Self; 5] = [
        Self::NicsInUse,
        Self::Masked,
        Self::Disabled,
        Self::NoUnit,
        Self::NoProgram,
    ];

    fn said(self) -> Said {
        let found = |finding, why, journal| Said {
            asked: Some((finding, why)),
            journal,
        };
        let of_systemd = |journal| Said {
            asked: None,
            journal: Some(journal),
        };
        match self {
            Self::Typo => {
                let why = "the configuration is wrong";
                found("configuration", why, Some(why))
            }
            Self::Blacklisted => {
                let why = "no-bonding.conf says `blacklist bonding`";
                found("bonding driver", why, Some(why))
            }
            Self::NoUser => {
                let why = "the user `tandem` does not exist";
                found("user", why, Some(why))
            }
            Self::CrashesInRun => found(
                "given back",
                // And how it fares at that moment.
                "are left to their network manager: the service ",
                Some("are given back to their network manager"),
            ),
            Self::NicsInUse => found(
                "given back",
                "the service runs and made no bond within",
                Some("are given back to their network manager"),
            ),
            Self::Masked => found("service", "tandem.service is masked", None),
            Self::Disabled => found("service", "tandem.service is not enabled", None),
            Self::NoUnit => found("service", "tandem.service is not installed", None),
            Self::NoProgram => of_systemd("203/EXEC"),
            Self::CrashesAlways => of_systemd("6/ABRT"),
            // It is done again, and nobody notices.
            Self::RefreshKilled => Said {
                asked: None,
                journal: None,
            },
        }
    }
}

#[test]
fn a_guest_with_a_broken_tandem_has_its_plain_network() {
    let Some(lab) = Lab::for_test("never worse") else {
        return;
    };
    let story = || -> Result<()> {
        let everything = std::env::var_os(EVERYTHING).is_some();
        let mut machine = guest::machine(&lab)?;

        // Without Tandem, and then installed as the guide says.
        let plain = machine.boot()?;
        let plain_delay = plain.online_after()?;
        plain.has_plain_network()?;
        plain.install_by_hand()?;
        works_at_once(&plain)?;

        let mut guest = machine.reboot(plain)?;
        works_after_a_boot(&guest)?;
        breaks_in_a_row(&guest, &Broken::USUAL)?;
        gives_back_after_the_watch_was_killed(&guest)?;
        marks_after_the_refresh_was_killed(&guest)?;
        if everything {
            breaks_in_a_row(&guest, &Broken::RARE)?;
            is_cut_off_without_the_watch(&guest)?;
            for broken in Broken::USUAL.into_iter().chain(Broken::RARE) {
                guest.break_by(broken)?;
                guest = machine.reboot(guest)?;
                is_no_worse(&guest, broken, plain_delay)?;
                guest.restore()?;
            }
        }

        // The service crashes, and nothing tells so before it is started.
        guest.break_by(Broken::CrashesInRun)?;
        let crashing = machine.reboot(guest)?;
        is_no_worse(&crashing, Broken::CrashesInRun, plain_delay)?;
        is_mended(&crashing)
    };
    story().unwrap();
}

/// Right after the installation, without a boot: the channel's port belongs to the new user too.
fn works_at_once(guest: &Guest<'_>) -> Result<()> {
    guest.sh(&format!("systemctl start {UNIT}"))?;
    guest.tandem.reach(BondState::Accelerated)?;
    // `networkd` was there first and has let go.
    guest.is_marked(true)?;
    guest.answers_the_client()
}

fn works_after_a_boot(guest: &Guest<'_>) -> Result<()> {
    guest.service_is_up()?;
    guest.tandem.reach(BondState::Accelerated)?;
    guest.is_marked(true)?;
    guest.answers_the_client()?;
    let check = guest.tandem.tandem(&["check"])?;
    ensure!(check.success(), "`tandem check`: {}", check.text());
    systemd::eventually("nothing is left to watch", STEP_LIMIT, || {
        let watch = systemd::property(guest.vm(), WATCH, "ActiveState")?;
        Ok((watch == "inactive").then_some(()).ok_or(watch))
    })?;

    guest.sh(&format!("systemctl stop {UNIT}"))?;
    guest.is_marked(true)?;
    guest.answers_the_client()
}

/// What is seen before the service starts needs no boot each: NICs that appear anew meet the same rules.
fn breaks_in_a_row(guest: &Guest<'_>, all: &[Broken]) -> Result<()> {
    for &broken in all {
        let story = || -> Result<()> {
            guest.break_by(broken)?;
            let took = guest.nics_come_anew()?;
            eprintln!("{broken:?}: plain network {took:?} after the NICs");
            ensure!(took < LATER, "plain network only after {took:?}");
            guest.is_marked(false)?;
            tells(guest, broken)?;
            guest.restore()
        };
        story().with_context(|| format!("{broken:?}"))?;
    }
    Ok(())
}

/// `kill -9` of what gives the NICs back, while it waits for a service that crashes.
fn gives_back_after_the_watch_was_killed(guest: &Guest<'_>) -> Result<()> {
    guest.break_by(Broken::CrashesInRun)?;
    let took = guest.nics_come_anew_while(|| {
        systemd::eventually("the watch runs", STEP_LIMIT, || {
            let state = systemd::property(guest.vm(), WATCH, "ActiveState")?;
            Ok((state == "active").then_some(()).ok_or(state))
        })?;
        guest.sh(&format!("systemctl kill --signal=KILL {WATCH}"))?;
        systemd::eventually("the watch runs again", STEP_LIMIT, || {
            let restarts = systemd::property(guest.vm(), WATCH, "NRestarts")?;
            Ok((restarts != "0").then_some(()).ok_or(restarts))
        })
    })?;
    eprintln!("with {WATCH} killed: plain network {took:?} after the NICs");
    ensure!(
        took < LATER + WATCH_AGAIN,
        "plain network only after {took:?}"
    );
    guest.is_marked(false)?;
    guest.restore()
}

/// `kill -9` of what marks the ports: it is done again without another change.
fn marks_after_the_refresh_was_killed(guest: &Guest<'_>) -> Result<()> {
    guest.break_by(Broken::RefreshKilled)?;
    guest.sh(&format!("systemctl start --no-block {REFRESH}"))?;
    systemd::eventually("the refresh is done again", STEP_LIMIT, || {
        let found =
            systemd::properties(guest.vm(), REFRESH, &["ActiveState", "Result", "NRestarts"])?;
        let is_done = found["ActiveState"] == "inactive" && found["Result"] == "success";
        let was_killed = guest
            .vm()
            .run(&["test", "-d", KILLED], STEP_LIMIT)?
            .success();
        Ok((is_done && was_killed)
            .then_some(())
            .ok_or(format!("{found:?}")))
    })?;
    guest.sh(&format!("rmdir {KILLED}"))?;
    guest.restore()
}

/// After a boot: not much later than without Tandem, from when udevd was there.
fn is_no_worse(guest: &Guest<'_>, broken: Broken, plain: Duration) -> Result<()> {
    let story = || -> Result<()> {
        let took = guest.online_after()?;
        guest.has_plain_network()?;
        let lost = guest.lost_since(&BTreeMap::new())?;
        let said = format!(
            "online after {took:?}, without Tandem after {plain:?}; waited {lost:?} for this machine's processors"
        );
        eprintln!("{broken:?}: {said}");
        ensure!(took <= plain + LATER + lost, "{said}");
        guest.is_marked(false)?;
        tells(guest, broken)
    };
    story().with_context(|| format!("{broken:?}, booted"))
}

/// `tandem check` fails by the finding, the service or whoever looks in its place says why, and so does the journal.
fn tells(guest: &Guest<'_>, broken: Broken) -> Result<()> {
    let said = broken.said();
    if let Some((finding, why)) = said.asked {
        let check = guest.tandem.tandem(&["check", "--json"])?;
        ensure!(!check.success(), "`tandem check` finds nothing");
        let report: serde_json::Value = serde_json::from_str(&check.text())?;
        let found = report["findings"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|found| found["name"] == finding)
            .with_context(|| format!("no finding `{finding}` in {report:#}"))?;
        ensure!(found["level"] == "fatal", "`tandem check` says {found:#}");
        eventually_says("`tandem status`", why, || {
            let status = guest.tandem.tandem(&["status"])?;
            Ok(format!("{}\n{}", status.text(), status.error_text()))
        })?;
    }
    if let Some(words) = said.journal {
        eventually_says("the journal", words, || systemd::journal(guest.vm(), UNIT))?;
    }
    Ok(())
}

fn eventually_says(who: &str, words: &str, ask: impl Fn() -> Result<String>) -> Result<()> {
    systemd::eventually(&format!("{who} says `{words}`"), STEP_LIMIT, || {
        let said = ask()?;
        Ok(said.contains(words).then_some(()).ok_or(said))
    })
}

/// What all this would be like without what gives NICs back.
fn is_cut_off_without_the_watch(guest: &Guest<'_>) -> Result<()> {
    guest.break_by(Broken::CrashesInRun)?;
    guest.sh(&format!("systemctl mask {WATCH}"))?;
    guest.take_nics_anew()?;
    std::thread::sleep(2 * LATER);
    guest.is_marked(true)?;
    let seen = guest.ping()?;
    ensure!(
        !seen.success(),
        "the guest answers without {WATCH}: {}",
        seen.text()
    );
    guest.sh(&format!("systemctl unmask {WATCH}"))?;
    let took = guest.nics_come_anew()?;
    eprintln!("with {WATCH} again: plain network {took:?} after the NICs");
    guest.restore()
}

/// The program works again, somebody starts it, and the NICs are Tandem's.
fn is_mended(guest: &Guest<'_>) -> Result<()> {
    guest.restore()?;
    let restart = ["systemctl", "restart", UNIT];
    let restarted = guest.vm().run(&restart, WAIT_LIMIT)?;
    ensure!(restarted.success(), "{}", restarted.error_text());
    guest.tandem.reach(BondState::Accelerated)?;
    guest.is_marked(true)?;
    guest.answers_the_client()?;
    let is_well = |status: &Status| status.problems.is_empty();
    guest.tandem.await_here("without a problem", is_well)?;
    Ok(())
}

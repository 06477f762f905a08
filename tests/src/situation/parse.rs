//! Reads situations: a step a line, words apart by spaces, `#` begins a comment line.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tandem_core::status::{BondState, Traffic};

use super::repeat;
use super::step::{Boot, Lost, Place, Port, State, Step, Verb, Way};
use crate::{HotPlug, NicModel};

/// Frames a second in each direction unless a step says otherwise.
const RATE_HZ: u32 = 200;
/// The highest rate: beyond it an emulated guest shows only its own limits.
const MOST_HZ: u32 = 2000;
/// The longest that a step waits for nothing.
const LONGEST: Duration = Duration::from_secs(300);

/// Every step with what follows it, as an error shows them.
const STEPS: [&str; 22] = [
    "config",
    "boot",
    "service",
    "prepare",
    "unplug",
    "plug",
    "migrate",
    "carrier",
    "bridge",
    "guest",
    "tandem",
    "host",
    "client",
    "peer",
    "refused",
    "wait",
    "probe, mark, end",
    "repeat, done",
    "lost",
    "expect",
    "holds",
    "check",
];

/// Why a text is no situation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// Which word is wrong there, and what is allowed.
    pub what: String,
}

type Parsed<T> = Result<T, String>;

/// The steps with their lines.
pub(super) fn parse(text: &str) -> Result<Vec<(usize, Step)>, ParseError> {
    let mut steps = Vec::new();
    let written_out = repeat::written_out(text).map_err(|(line, what)| ParseError {
        line,
        what: what.to_owned(),
    })?;
    for (number, line) in written_out {
        let wrong = |what| ParseError { line: number, what };
        let step = step(line).map_err(wrong)?;
        in_order(&steps, &step).map_err(wrong)?;
        steps.push((number, step));
    }
    let last = text.lines().count().max(1);
    let wrong = |what: &str| ParseError {
        line: last,
        what: what.to_owned(),
    };
    let has = |wanted: fn(&Step) -> bool| steps.iter().any(|(_, step)| wanted(step));
    if !has(|step| matches!(step, Step::Boot(_))) {
        return Err(wrong("the text ends without a `boot`"));
    }
    if is_probing(&steps) {
        return Err(wrong("the probe has no `end`"));
    }
    let shows = |step: &Step| {
        matches!(
            step,
            Step::Expect(_) | Step::Holds(..) | Step::Lost(_) | Step::Check | Step::Run { .. }
        )
    };
    if !has(shows) {
        return Err(wrong("it expects nothing, so it shows nothing"));
    }
    Ok(steps)
}

/// Whether a probe runs after these steps.
fn is_probing(steps: &[(usize, Step)]) -> bool {
    let mut steps = steps.iter().rev();
    let last = steps.find(|(_, step)| matches!(step, Step::Probe(_) | Step::End));
    matches!(last, Some((_, Step::Probe(_))))
}

/// Whether a step may come after those before.
fn in_order(before: &[(usize, Step)], step: &Step) -> Parsed<()> {
    let has = |wanted: fn(&Step) -> bool| before.iter().any(|(_, step)| wanted(step));
    let booted = has(|step| matches!(step, Step::Boot(_)));
    match step {
        Step::Boot(_) if booted => Err("the guest has booted already".to_owned()),
        Step::Config(_) if booted => Err("`config` comes before `boot`".to_owned()),
        Step::Boot(_) | Step::Config(_) => Ok(()),
        _ if !booted => Err("`boot` comes first".to_owned()),
        Step::Probe(_) if is_probing(before) => Err("the probe before has no `end`".to_owned()),
        Step::Mark(_) | Step::End if !is_probing(before) => Err("no `probe` runs".to_owned()),
        Step::Lost(lost) => {
            if is_probing(before) || !has(|step| matches!(step, Step::End)) {
                return Err("`lost` comes after the probe's `end`".to_owned());
            }
            let known: Vec<_> = before.iter().filter_map(|(_, step)| phase(step)).collect();
            match &lost.phase {
                Some(phase) if phase != "rest" && !known.contains(&phase.as_str()) => Err(format!(
                    "no `mark {phase}` is there; marks are: rest, {}",
                    known.join(", ")
                )),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn phase(step: &Step) -> Option<&str> {
    match step {
        Step::Mark(phase) => Some(phase),
        _ => None,
    }
}

fn step(line: &str) -> Parsed<Step> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim();
    let nothing = |step| match rest {
        "" => Ok(step),
        more => Err(format!("`{more}`: nothing follows `{word}`")),
    };
    let run = |place| command(place, rest, true);
    match word {
        "config" if rest.is_empty() => {
            Err("a line of the bond's configuration follows `config`".to_owned())
        }
        "config" => Ok(Step::Config(rest.to_owned())),
        "boot" => boot(rest).map(Step::Boot),
        "service" => one_of(rest, &VERBS).map(Step::Service),
        "prepare" if rest.is_empty() => Ok(Step::Prepare(None)),
        "prepare" => one_of(rest, &PORTS[..2]).map(|vf| Step::Prepare(Some(vf))),
        "unplug" if rest == "second" => Ok(Step::Unplug(Port::Second)),
        "unplug" => nothing(Step::Unplug(Port::Vf)),
        "plug" if rest == "second" => Ok(Step::PlugSecond),
        "plug" => {
            one_of(rest, &[("same", false), ("other", true)]).map(|other| Step::Plug { other })
        }
        "migrate" => nothing(Step::Migrate),
        "carrier" => port_and(rest).map(|(port, on)| Step::Carrier(port, on)),
        "bridge" => port_and(rest).map(|(port, on)| Step::Bridge(port, on)),
        "guest" => run(Place::Guest),
        "tandem" => run(Place::Tandem),
        "host" => run(Place::Host),
        "client" => run(Place::Client),
        "peer" => run(Place::Peer),
        "refused" => {
            let (place, line) = rest.split_once(' ').unwrap_or((rest, ""));
            command(one_of(place, &PLACES)?, line, false)
        }
        "wait" => match rest.strip_prefix("up to ") {
            Some(longest) => duration(longest.trim()).map(Step::WaitUpTo),
            None => duration(rest).map(Step::Wait),
        },
        "probe" => rate(rest).map(Step::Probe),
        "mark" => name(rest).map(Step::Mark),
        "end" => nothing(Step::End),
        "lost" => lost(rest).map(Step::Lost),
        "expect" => state(rest).map(Step::Expect),
        "holds" => {
            let words: Vec<_> = rest.splitn(3, ' ').collect();
            let [number, unit, wanted] = words[..] else {
                return Err("a time and a state follow `holds`, such as `10 s standby`".to_owned());
            };
            let time = duration(&format!("{number} {unit}"))?;
            Ok(Step::Holds(time, state(wanted)?))
        }
        "check" => nothing(Step::Check),
        _ => Err(format!(
            "`{word}` is no step; steps are: {}",
            STEPS.join(", ")
        )),
    }
}

const VERBS: [(&str, Verb); 6] = [
    ("start", Verb::Start),
    ("stop", Verb::Stop),
    ("kill", Verb::Kill),
    ("freeze", Verb::Freeze),
    ("thaw", Verb::Thaw),
    ("reload", Verb::Reload),
];
const PORTS: [(&str, Port); 3] = [
    ("vf", Port::Vf),
    ("second", Port::Second),
    ("standby", Port::Standby),
];
const PLACES: [(&str, Place); 5] = [
    ("guest", Place::Guest),
    ("tandem", Place::Tandem),
    ("host", Place::Host),
    ("client", Place::Client),
    ("peer", Place::Peer),
];

fn one_of<T: Copy>(word: &str, allowed: &[(&str, T)]) -> Parsed<T> {
    let found = allowed.iter().find(|(name, _)| *name == word);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = allowed.iter().map(|(name, _)| *name).collect();
        format!("`{word}` is none of: {}", names.join(", "))
    })
}

fn port_and(rest: &str) -> Parsed<(Port, bool)> {
    let (port, on) = rest.split_once(' ').unwrap_or((rest, ""));
    Ok((
        one_of(port, &PORTS)?,
        one_of(on, &[("on", true), ("off", false)])?,
    ))
}

fn command(place: Place, line: &str, succeeds: bool) -> Parsed<Step> {
    match line.trim() {
        "" => Err("a command is missing".to_owned()),
        line => Ok(Step::Run {
            place,
            line: line.to_owned(),
            succeeds,
        }),
    }
}

fn boot(rest: &str) -> Parsed<Boot> {
    let mut boot = Boot {
        kernel: None,
        model: NicModel::Igb,
        hot_plug: HotPlug::Acpi,
    };
    for word in rest.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "kernel" => {
                let kernel = value.parse();
                boot.kernel = Some(kernel.map_err(|error| format!("`{value}`: {error}"))?);
            }
            "vf" => {
                let models = [("igb", NicModel::Igb), ("e1000e", NicModel::E1000e)];
                boot.model = one_of(value, &models)?;
            }
            "hot-plug" => {
                let kinds = [("acpi", HotPlug::Acpi), ("native", HotPlug::Native)];
                boot.hot_plug = one_of(value, &kinds)?;
            }
            _ => {
                return Err(format!(
                    "`{word}`: after `boot` come kernel=, vf= or hot-plug="
                ));
            }
        }
    }
    Ok(boot)
}

/// Such as `10 s` or `200 ms`.
fn duration(text: &str) -> Parsed<Duration> {
    let wrong = || format!("`{text}` is no time such as `10 s` or `200 ms`");
    let (number, unit) = text.split_once(' ').ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let time = match unit {
        "s" => Duration::from_secs(number),
        "ms" => Duration::from_millis(number),
        _ => return Err(wrong()),
    };
    match time {
        Duration::ZERO => Err(wrong()),
        time if time > LONGEST => Err(format!("`{text}` is more than {} s", LONGEST.as_secs())),
        time => Ok(time),
    }
}

fn rate(text: &str) -> Parsed<u32> {
    if text.is_empty() {
        return Ok(RATE_HZ);
    }
    let rate = text.parse().ok();
    rate.filter(|rate| (1..=MOST_HZ).contains(rate))
        .ok_or_else(|| format!("`{text}` is no number of frames a second from 1 to {MOST_HZ}"))
}

fn name(text: &str) -> Parsed<String> {
    match text {
        "" => Err("a name follows `mark`".to_owned()),
        text if text.contains(' ') => Err(format!("`{text}` is more than one word")),
        text => Ok(text.to_owned()),
    }
}

/// `[in PHASE] [to-guest|from-guest] at most|at least NUMBER`
fn lost(text: &str) -> Parsed<Lost> {
    let form = || {
        format!(
            "`{text}`: after `lost` come, in this order: in PHASE (or it is all), to-guest or from-guest (or it is \
             both), and at most or at least a NUMBER"
        )
    };
    let mut words: Vec<_> = text.split_whitespace().collect();
    let mut lost = Lost {
        phase: None,
        way: Way::Both,
        at_most: true,
        frames: 0,
    };
    if let ["in", phase, ..] = words[..] {
        lost.phase = Some(phase.to_owned());
        words.drain(..2);
    }
    let way = match words.first() {
        Some(&"to-guest") => Some(Way::ToGuest),
        Some(&"from-guest") => Some(Way::FromGuest),
        _ => None,
    };
    if let Some(way) = way {
        lost.way = way;
        words.remove(0);
    }
    let ["at", bound, frames] = words[..] else {
        return Err(form());
    };
    lost.at_most = one_of(bound, &[("most", true), ("least", false)])?;
    lost.frames = frames.parse().map_err(|_| form())?;
    Ok(lost)
}

fn state(text: &str) -> Parsed<State> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match (word, rest) {
        ("traffic", carrier) => {
            let carriers = [
                ("vf", Traffic::Vf),
                ("standby", Traffic::Standby),
                ("none", Traffic::None),
            ];
            one_of(carrier, &carriers).map(State::Traffic)
        }
        ("problem", code) => known(code).map(State::Problem),
        ("no", "problem") => Ok(State::NoProblem),
        ("armed", "") => Ok(State::Armed),
        ("backup", "") => Ok(State::Backup),
        ("measured", "") => Ok(State::Measured),
        (state, "") => known::<BondState>(state).map(State::Bond).map_err(|error| {
            format!(
                "{error}; or traffic vf|standby|none, problem CODE, no problem, armed, backup, measured"
            )
        }),
        (_, more) => Err(format!("`{more}` is too much")),
    }
}

/// A word of the status, as the channel has it.
fn known<T: DeserializeOwned + Serialize>(word: &str) -> Parsed<T> {
    let read = serde_json::from_value::<T>(Value::from(word)).ok();
    // A word of a newer version would be read as `unknown`.
    let same = |value: &T| serde_json::to_value(value).is_ok_and(|written| written == word);
    read.filter(same)
        .ok_or_else(|| format!("`{word}` is no word of the status; docs/reference.md has them all"))
}

#[cfg(test)]
mod tests {
    use tandem_core::status::ProblemCode;

    use super::*;

    #[test]
    fn every_step_is_read() {
        let text = "\
# A comment.
config hold-ms = 100
boot kernel=6.1 vf=e1000e hot-plug=native
service start
expect accelerated
expect traffic vf
expect armed
prepare
probe 500
mark away
unplug
migrate
plug other
carrier standby off
bridge vf on
guest ip link set \"$STANDBY\" up
refused tandem failback bond0
host bridge fdb show
client ping -c 1 $GUEST
wait 200 ms
holds 10 s standby
end
lost at most 10
lost in away to-guest at least 1
expect problem path-broken
expect no problem
check
";
        let steps = parse(text).unwrap();
        assert_eq!(steps.len(), 26);
        let at = |line: usize| &steps.iter().find(|(number, _)| *number == line).unwrap().1;
        assert_eq!(at(9), &Step::Probe(500));
        assert_eq!(at(14), &Step::Carrier(Port::Standby, false));
        let refused = Step::Run {
            place: Place::Tandem,
            line: "failback bond0".to_owned(),
            succeeds: false,
        };
        assert_eq!(at(17), &refused);
        let lost = Step::Lost(Lost {
            phase: Some("away".to_owned()),
            way: Way::ToGuest,
            at_most: false,
            frames: 1,
        });
        assert_eq!(at(24), &lost);
        let problem = State::Problem(ProblemCode::PathBroken);
        assert_eq!(at(25), &Step::Expect(problem));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_is_allowed() {
        let cases = [
            (
                "boot\nunplg",
                2,
                "`unplg` is no step; steps are: config, boot",
            ),
            ("boot vf=mlx5", 1, "`mlx5` is none of: igb, e1000e"),
            ("boot kernel=5.10", 1, "6.1, 6.12 and 7.3"),
            ("unplug", 1, "`boot` comes first"),
            ("boot\nboot", 2, "booted already"),
            ("boot\nconfig x = 1", 2, "before `boot`"),
            ("boot\nservice pause", 2, "start, stop, kill"),
            ("boot\nplug", 2, "`` is none of: same, other"),
            ("boot\nexpect fast", 2, "or traffic vf|standby|none"),
            ("boot\nexpect problem x", 2, "`x` is no word"),
            ("boot\nexpect traffic both", 2, "vf, standby, none"),
            ("boot\nwait 5", 2, "`10 s`"),
            ("boot\nwait 301 s", 2, "300 s"),
            ("boot\nwait up to soon", 2, "`10 s`"),
            ("boot\nrepeat 0\ncheck\ndone", 2, "`repeat 20`"),
            ("boot\nrepeat 2\ncheck", 2, "without `done`"),
            ("boot\ndone", 2, "without `repeat`"),
            ("boot\nrepeat 2\nrepeat 2\ndone", 3, "within"),
            ("boot\nholds 5 s", 2, "a state"),
            ("boot\nprobe 0", 2, "from 1 to 2000"),
            ("boot\nmark x", 2, "no `probe` runs"),
            ("boot\nprobe\nprobe\nend", 3, "has no `end`"),
            ("boot\nprobe\nmark a b", 3, "more than one word"),
            (
                "boot\nprobe\nlost at most 1\nend",
                3,
                "after the probe's `end`",
            ),
            (
                "boot\nprobe\nmark a\nend\nlost in b at most 1",
                5,
                "marks are: rest, a",
            ),
            ("boot\nprobe\nend\nlost 5", 4, "at most or at least"),
            ("boot\nprobe\ncheck", 3, "the probe has no `end`"),
            ("boot\nguest", 2, "a command is missing"),
            (
                "boot\nrefused nowhere true",
                2,
                "guest, tandem, host, client",
            ),
            ("boot\ncarrier vf", 2, "`` is none of: on, off"),
            ("boot\nunplug now", 2, "nothing follows `unplug`"),
            ("boot\nunplug", 2, "it expects nothing"),
            ("# nothing", 1, "without a `boot`"),
        ];
        for (text, line, part) in cases {
            let error = parse(text).expect_err(text);
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.what.contains(part), "{text}: {error}");
        }
    }
}

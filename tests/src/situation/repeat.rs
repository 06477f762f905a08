//! Steps that a situation repeats.

/// How often at most.
const MOST_TIMES: usize = 100;

/// What stands between `repeat` and `done`.
struct Repeated<'text> {
    /// The line of `repeat`.
    line: usize,
    times: usize,
    lines: Vec<(usize, &'text str)>,
}

impl<'text> Repeated<'text> {
    fn new(line: usize, times: &str) -> Option<Self> {
        let times = times.trim().parse().ok();
        Some(Self {
            line,
            times: times.filter(|times| (1..=MOST_TIMES).contains(times))?,
            lines: Vec::new(),
        })
    }
}

/// The lines with steps, those between `repeat` and `done` as often as it says. Else the line where that is wrong, and
/// what is wrong there.
pub(super) fn written_out(text: &str) -> Result<Vec<(usize, &str)>, (usize, &'static str)> {
    let mut lines = Vec::new();
    let mut repeated: Option<Repeated<'_>> = None;
    for (line, text) in (1..).zip(text.lines().map(str::trim)) {
        let wrong = |what| (line, what);
        match (text.strip_prefix("repeat "), &mut repeated) {
            _ if text.is_empty() || text.starts_with('#') => {}
            (Some(_), Some(_)) => return Err(wrong("`repeat` within `repeat`")),
            (Some(times), None) => {
                let begun = Repeated::new(line, times);
                let how_often = "how often? `repeat 20`, at most 100 times";
                repeated = Some(begun.ok_or_else(|| wrong(how_often))?);
            }
            (None, Some(done)) if text == "done" => {
                (0..done.times).for_each(|_| lines.extend_from_slice(&done.lines));
                repeated = None;
            }
            (None, None) if text == "done" => return Err(wrong("`done` without `repeat`")),
            (None, Some(repeated)) => repeated.lines.push((line, text)),
            (None, None) => lines.push((line, text)),
        }
    }
    match repeated {
        Some(Repeated { line, .. }) => Err((line, "`repeat` without `done`")),
        None => Ok(lines),
    }
}

//! Several measurements of the same thing as one figure.

use std::fmt;

use serde::Serialize;

/// Median and extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of these; nothing of none.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { median, min, max })
    }

    /// With so many decimals.
    pub(super) fn show(self, digits: usize) -> String {
        let Self { median, min, max } = self;
        let [median, min, max] = [median, min, max].map(|value| format!("{value:.digits$}"));
        match min == max {
            true => median,
            false => format!("{median} ({min}..{max})"),
        }
    }
}

/// With so many decimals; a dash for nothing.
pub(super) fn show(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| spread.show(digits))
}

/// Median and quartiles, of what is measured so often that extremes say little.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quartiles {
    #[serde(rename = "low-quartile")]
    pub(super) low: f64,
    pub(super) median: f64,
    #[serde(rename = "high-quartile")]
    pub(super) high: f64,
}

impl Quartiles {
    /// Of these; not a number of none.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = (values.len().saturating_sub(1)) as f64 * part;
            let value = values.get(place.round() as usize);
            value.copied().unwrap_or(f64::NAN)
        };
        Self {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
        }
    }

    /// With so many decimals.
    pub(super) fn show(self, digits: usize) -> String {
        let Self { low, median, high } = self;
        format!("{median:.digits$} [{low:.digits$}-{high:.digits$}]")
    }
}

/// `12 (10..31)`; `0` if all are the same; one decimal where it says something.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.max < 10.0;
        let number = |value: f64| {
            if value.fract() == 0.0 || !small {
                format!("{value:.0}")
            } else {
                format!("{value:.1}")
            }
        };
        let [median, min, max] = [self.median, self.min, self.max].map(number);
        if min == max {
            f.pad(&median)
        } else {
            f.pad(&format!("{median} ({min}..{max})"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_one_or_between_the_two() {
        let spread = Spread::of([31.0, 10.0, 12.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (12.0, 10.0, 31.0));
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn quartiles_are_those_of_the_sorted_values() {
        let of = Quartiles::of([5.0, 1.0, 4.0, 2.0, 3.0].into_iter());
        assert_eq!((of.low, of.median, of.high), (2.0, 3.0, 4.0));
        assert_eq!(of.show(1), "3.0 [2.0-4.0]");
    }

    #[test]
    fn spreads_are_short() {
        let show = |values: &[f64]| Spread::of(values.iter().copied()).unwrap().to_string();
        assert_eq!(show(&[0.0, 0.0]), "0");
        assert_eq!(show(&[31.0, 10.0, 12.4]), "12 (10..31)");
        assert_eq!(show(&[0.25, 1.0]), "0.6 (0.2..1)");
        let spread = Spread::of([1.0, 2.04]).unwrap();
        assert_eq!(
            (spread.show(1), spread.show(0)),
            ("1.5 (1.0..2.0)".to_owned(), "2 (1..2)".to_owned())
        );
        assert_eq!(format!("{:>6}|", Spread::of([7.0]).unwrap()), "     7|");
    }
}

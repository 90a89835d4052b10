// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Contenders take turns, so that what else the machine does hits all of them.

use std::fmt::{Display, Formatter, Result as FmtResult};

use anyhow::Result;

use crate::pace::Pace;

/// Rounds that count for nothing: they fill caches and commit memory.
const WARM_UP: usize = 2;

/// How long a run takes.
#[derive(Clone, Copy)]
pub(crate) struct Effort<'a> {
    /// Rounds that count.
    pub(crate) rounds: usize,
    /// Divides the work of a turn.
    pub(crate) divisor: usize,
    /// The cores' speed.
    pub(crate) pace: &'a Pace,
}

/// What many turns gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Median and quartiles; `None` of nothing.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |quarter: usize| values.get((last * quarter + 2) / 4).copied();
        Some(Self {
            low: at(1)?,
            median: at(2)?,
            high: at(3)?,
        })
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        let digits = f.precision().unwrap_or(1);
        let Self { low, median, high } = self;
        write!(f, "{median:.digits$} ({low:.digits$} to {high:.digits$})")
    }
}

/// What a contender does in its turn, giving a value a column; or why it does nothing.
pub(crate) struct Turn<'a, const N: usize> {
    pub(crate) name: String,
    pub(crate) ours: bool,
    pub(crate) run: Result<Run<'a, N>, String>,
}

/// One turn.
pub(crate) type Run<'a, const N: usize> = Box<dyn FnMut() -> Result<[f64; N]> + 'a>;

/// What came of a contender.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) ours: bool,
    /// A spread a column, or why there is none.
    pub(crate) values: Result<Vec<Spread>, String>,
}

/// Lets everybody take a turn a round. Who fails is out.
pub(crate) fn take_turns<const N: usize>(
    effort: Effort<'_>,
    mut turns: Vec<Turn<'_, N>>,
) -> Vec<Row> {
    let mut values: Vec<Vec<[f64; N]>> = vec![Vec::new(); turns.len()];
    let count = turns.len();
    for round in 0..effort.rounds + WARM_UP {
        // Not always after the same neighbour.
        for index in (0..count).map(|index| (index + round) % count) {
            let (Some(turn), Some(values)) = (turns.get_mut(index), values.get_mut(index)) else {
                continue;
            };
            let Ok(run) = &mut turn.run else {
                continue;
            };
            match effort.pace.measure(run) {
                Ok(value) if round >= WARM_UP => values.push(value),
                Ok(_) => {}
                Err(error) => turn.run = Err(format!("{error:#}")),
            }
        }
    }
    let rows = turns.into_iter().zip(values);
    rows.map(|(turn, values)| row(turn, &values)).collect()
}

fn row<const N: usize>(turn: Turn<'_, N>, values: &[[f64; N]]) -> Row {
    let spreads = turn.run.map(drop).and_then(|()| {
        let columns = (0..N).map(|column| {
            let values = values.iter().filter_map(|value| value.get(column));
            Spread::of(values.copied().collect())
        });
        let spreads: Option<Vec<_>> = columns.collect();
        spreads.ok_or_else(|| "no round that counts".to_owned())
    });
    Row {
        name: turn.name,
        ours: turn.ours,
        values: spreads,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn turn<'a>(name: &str, run: impl FnMut() -> Result<[f64; 1]> + 'a) -> Turn<'a, 1> {
        Turn {
            name: name.to_owned(),
            ours: false,
            run: Ok(Box::new(run)),
        }
    }

    fn five_turns<'a>(turns: Vec<Turn<'a, 1>>) -> Vec<Row> {
        let pace = Pace::any(None);
        let effort = Effort {
            rounds: 5,
            divisor: 1,
            pace: &pace,
        };
        take_turns(effort, turns)
    }

    #[test]
    fn the_median_and_the_quartiles_of_five_are_the_third_second_and_fourth() {
        let spread = Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        let expected = Spread {
            low: 2.0,
            median: 3.0,
            high: 4.0,
        };
        assert_eq!(spread, Some(expected));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn warm_up_rounds_do_not_count() {
        let mut round = 0.0;
        let rows = five_turns(vec![turn("a", || {
            round += 1.0;
            Ok([round])
        })]);
        let values = rows[0].values.clone().unwrap();
        assert_eq!((values[0].low, values[0].median), (4.0, 5.0));
    }

    #[test]
    fn who_fails_is_out_and_the_others_go_on() {
        let mut turns = 0;
        let rows = five_turns(vec![
            turn("a", || {
                turns += 1;
                bail!("gone")
            }),
            turn("b", || Ok([1.0])),
        ]);
        assert_eq!(rows[0].values.clone().unwrap_err(), "gone");
        assert!(rows[1].values.is_ok());
        assert_eq!(turns, 1);
    }
}

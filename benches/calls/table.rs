//! The table at the end of a run: our figure, the limit, their ratio and its spread, the goal.

use serde_json::{Value, json};

/// The goal for the ratio of our figure to the limit.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// No goal: the figure is for information.
    None,
}

struct Row {
    what: String,
    unit: &'static str,
    ours: Vec<f64>,
    limit: Vec<f64>,
    goal: Goal,
}

#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// Adds our figure and a limit that was measured in turns with it.
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        (ours, limit): (&[f64], &[f64]),
        goal: Goal,
    ) {
        self.0.push(Row {
            what: what.into(),
            unit,
            ours: ours.to_vec(),
            limit: limit.to_vec(),
            goal,
        });
    }

    /// Adds our figure and a number that it must reach.
    pub(crate) fn at_least(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        ours: &[f64],
        limit: f64,
    ) {
        self.add(what, unit, (ours, &[limit]), Goal::AtLeast(1.0));
    }

    /// Adds our figure and a number that it must not exceed.
    pub(crate) fn at_most(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        ours: &[f64],
        limit: f64,
    ) {
        self.add(what, unit, (ours, &[limit]), Goal::AtMost(1.0));
    }

    /// Adds a figure without a goal.
    pub(crate) fn info(&mut self, what: impl Into<String>, unit: &'static str, ours: &[f64]) {
        self.add(what, unit, (ours, &[]), Goal::None);
    }

    pub(crate) fn print(&self) {
        println!(
            "{:<44} {:>5} {:>10} {:>10} {:>6}  {:<13} goal",
            "", "unit", "ours", "limit", "ratio", "10 to 90 %"
        );
        for row in &self.0 {
            row.print();
        }
    }

    pub(crate) fn raw(&self) -> Value {
        let row = |row: &Row| json!({"what": row.what, "unit": row.unit, "ours": row.ours, "limit": row.limit});
        self.0.iter().map(row).collect()
    }
}

impl Row {
    fn print(&self) {
        print!(
            "{:<44} {:>5} {:>10}",
            self.what,
            self.unit,
            short(median(&self.ours))
        );
        if self.limit.is_empty() {
            println!();
            return;
        }
        let ratios = self.ratios();
        let ratio = median(&ratios);
        let spread = format!(
            "{:.2} to {:.2}",
            ratios[ratios.len() / 10],
            ratios[ratios.len() * 9 / 10]
        );
        let limit = short(median(&self.limit));
        println!(
            " {limit:>10} {ratio:>6.2}  {spread:<13} {}",
            self.goal.judge(ratio)
        );
    }

    /// The ratios of all rounds, sorted.
    fn ratios(&self) -> Vec<f64> {
        let limits = self.limit.iter().cycle();
        let mut ratios: Vec<f64> = self.ours.iter().zip(limits).map(|(a, b)| a / b).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}

impl Goal {
    fn judge(self, ratio: f64) -> String {
        let (sign, goal, met) = match self {
            Self::AtLeast(goal) => (">=", goal, ratio >= goal),
            Self::AtMost(goal) => ("<=", goal, ratio <= goal),
            Self::None => return String::new(),
        };
        format!("{sign} {goal:.2}{}", if met { "" } else { "  missed" })
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn short(value: f64) -> String {
    if value >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

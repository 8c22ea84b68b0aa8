//! How cost and a processor's time grow with the audience: a first load and a file of a hundred changes (`simulation::import`)
//! from ten thousand ECIDs to ten million, drawn into a picture for the documents.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context as _, ensure};
use serde_json::json;
use simulation::import::{Delivery, measure};

use crate::flags::Flags;
use crate::import::{CHANGES, SEGMENTS, dollars, plan_of};
use crate::rig::{prices, root};

/// Sizes that are measured, in ECIDs.
const SIZES: [u64; 7] = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000];
/// The picture, from the workspace's folder on.
const PICTURE: &str = "infra/docs/growth.svg";

/// What one file of one size took.
#[derive(Debug, Clone, Copy)]
struct Point {
    ecids: u64,
    delivery: Delivery,
    dollars: f64,
    seconds: f64,
}

/// Runs `growth [--size N] [--json]`. The picture is drawn unless a size, the largest one to measure, is given.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let flags = Flags::read(words, &["--size"], &["--json"])?;
    let most = flags.number("--size");
    let prices = prices()?;
    let mut points = Vec::new();
    let mut out = std::io::stdout().lock();
    for ecids in SIZES.into_iter().filter(|size| most.is_none_or(|most| *size <= most)) {
        for measured in measure(plan_of(ecids, SEGMENTS)) {
            let (delivery, seconds) =
                (measured.counts.delivery, measured.seconds.context("this system tells no times")?);
            if delivery == Delivery::Again {
                continue;
            }
            let point = Point { ecids, delivery, dollars: dollars(measured.counts.usage, &prices)?, seconds };
            if flags.has("--json") {
                let Point { dollars, seconds, .. } = point;
                writeln!(
                    out,
                    "{}",
                    json!({"ecids": ecids, "delivery": delivery, "dollars": dollars, "processor_seconds": seconds})
                )?;
            } else {
                let what = name(delivery);
                writeln!(out, "{ecids:>10} ECIDs  {what:<12} ${:<10.6} {seconds:.4} s", point.dollars)?;
            }
            points.push(point);
        }
    }
    ensure!(!points.is_empty(), "--size takes at least {}", SIZES[0]);
    if most.is_none() {
        std::fs::write(root().join(PICTURE), picture(&points)).context(PICTURE)?;
    }
    Ok(())
}

fn name(delivery: Delivery) -> String {
    match delivery {
        Delivery::First => "first load".to_owned(),
        Delivery::Again => "a day later".to_owned(),
        Delivery::Changes => format!("{CHANGES} changes"),
    }
}

/// Both figures against the size, side by side, on scales on which a straight line that rises as the grid does is growth in
/// proportion.
fn picture(points: &[Point]) -> String {
    let mut svg = String::new();
    let (width, height) = (2.0 * PANEL, TOP + HIGH + BELOW);
    write!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="Cost and processor time against the size of the audience: a first load grows in proportion, a file of {CHANGES} changes does not grow" font-family="system-ui, sans-serif" font-size="12">
  <desc>drawn by: cargo run --release -p bench -- growth</desc>
  <style>
    .grid {{ stroke: #d5dbe1; stroke-width: 1 }}
    .label {{ fill: #444 }}
    .title {{ fill: #10293d; font-size: 14px; font-weight: 600 }}
    .first {{ stroke: #24527a; fill: #24527a }}
    .changes {{ stroke: #b3541e; fill: #b3541e }}
    polyline {{ fill: none !important; stroke-width: 2 }}
    .name {{ stroke: none !important; font-weight: 600 }}
  </style>
  <rect width="{width}" height="{height}" fill="#ffffff"/>
"##
    )
    .ok();
    panel(
        &mut svg,
        0.0,
        "S3 and DynamoDB, dollars a file",
        points,
        |point| point.dollars,
        |power| format!("${}", ten(power)),
    );
    panel(
        &mut svg,
        PANEL,
        "A processor's time, seconds a file",
        points,
        |point| point.seconds,
        |power| format!("{} s", ten(power)),
    );
    svg.push_str("</svg>\n");
    svg
}

/// Width of a panel, and what is around its grid.
const PANEL: f64 = 460.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 44.0;
const BELOW: f64 = 48.0;
/// Height of the grid.
const HIGH: f64 = 260.0;

/// A power of ten as one writes it.
fn ten(power: i32) -> String {
    let digits = usize::try_from(-power).unwrap_or_default();
    format!("{:.digits$}", 10_f64.powi(power))
}

/// The whole powers of ten between which all figures lie.
fn decades(figures: impl Iterator<Item = f64>) -> (i32, i32) {
    let (least, most) = figures.fold((f64::MAX, f64::MIN), |(least, most), one| (least.min(one), most.max(one)));
    #[expect(clippy::cast_possible_truncation, reason = "logarithms of what can be measured")]
    let (least, most) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    (least, most.max(least + 1))
}

#[expect(clippy::cast_precision_loss)]
fn panel(
    svg: &mut String,
    from: f64,
    title: &str,
    points: &[Point],
    figure: impl Fn(&Point) -> f64,
    told: impl Fn(i32) -> String,
) {
    let (least_x, most_x) = decades(points.iter().map(|point| point.ecids as f64));
    let (least_y, most_y) = decades(points.iter().map(&figure));
    let part = |value: f64, least: i32, most: i32| (value - f64::from(least)) / f64::from(most - least);
    let wide = PANEL - LEFT - RIGHT;
    let x = |log: f64| from + LEFT + wide * part(log, least_x, most_x);
    let y = |log: f64| TOP + HIGH * (1.0 - part(log, least_y, most_y));
    let (left, right, bottom) = (from + LEFT, from + PANEL - RIGHT, TOP + HIGH);
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(svg, "  {text}").ok();
    line(format_args!(r#"<text class="title" x="{left}" y="24">{title}</text>"#));
    for power in least_x..=most_x {
        let at = x(f64::from(power));
        line(format_args!(r#"<line class="grid" x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{bottom}"/>"#));
        let size = match power {
            ..3 => ten(power),
            3..6 => format!("{} k", ten(power - 3)),
            _ => format!("{} M", ten(power - 6)),
        };
        let below = bottom + 18.0;
        line(format_args!(r#"<text class="label" x="{at:.1}" y="{below}" text-anchor="middle">{size}</text>"#));
    }
    let (middle, below) = (f64::midpoint(left, right), bottom + 38.0);
    line(format_args!(
        r#"<text class="label" x="{middle:.1}" y="{below}" text-anchor="middle">ECIDs, each in {SEGMENTS} segments</text>"#
    ));
    for power in least_y..=most_y {
        let at = y(f64::from(power));
        line(format_args!(r#"<line class="grid" x1="{left}" y1="{at:.1}" x2="{right}" y2="{at:.1}"/>"#));
        let (before, at, label) = (left - 8.0, at + 4.0, told(power));
        line(format_args!(r#"<text class="label" x="{before}" y="{at:.1}" text-anchor="end">{label}</text>"#));
    }
    for (delivery, class) in [(Delivery::First, "first"), (Delivery::Changes, "changes")] {
        let own: Vec<(f64, f64)> = points
            .iter()
            .filter(|point| point.delivery == delivery)
            .map(|point| (x((point.ecids as f64).log10()), y(figure(point).log10())))
            .collect();
        let path: Vec<String> = own.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        line(format_args!(r#"<polyline class="{class}" points="{}"/>"#, path.join(" ")));
        for (x, y) in &own {
            line(format_args!(r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="3"/>"#));
        }
        if let Some((x, y)) = own.last() {
            // Above the line's end, where nothing else is drawn.
            let (x, y, name) = (x - 8.0, y - 10.0, name(delivery));
            line(format_args!(r#"<text class="name {class}" x="{x:.1}" y="{y:.1}" text-anchor="end">{name}</text>"#));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_as_much_is_as_far_up_as_to_the_right_of_the_grid() {
        let point = |ecids, delivery, dollars| Point { ecids, delivery, dollars, seconds: 0.5 };
        let points = [
            point(10_000, Delivery::First, 0.001),
            point(100_000, Delivery::First, 0.01),
            point(10_000, Delivery::Changes, 0.001),
            point(100_000, Delivery::Changes, 0.001),
        ];
        let svg = picture(&points);
        let bottom = TOP + HIGH;
        let corner = |x: f64, y: f64| format!("{x:.1},{y:.1}");
        let (left, right) = (LEFT, PANEL - RIGHT);
        assert!(svg.contains(&format!("points=\"{} {}\"", corner(left, bottom), corner(right, TOP))), "{svg}");
        assert!(svg.contains(&format!("points=\"{} {}\"", corner(left, bottom), corner(right, bottom))), "{svg}");
        for label in [">$0.001<", ">$0.01<", ">0.1 s<", ">1 s<", ">10 k<", ">100 k<"] {
            assert!(svg.contains(label), "{label}");
        }
    }

    #[test]
    fn figures_lie_between_powers_of_ten() {
        assert_eq!(decades([0.002, 5.0].into_iter()), (-3, 1));
        assert_eq!(decades([1.0].into_iter()), (0, 1));
        assert_eq!([ten(-3), ten(0), ten(2)], ["0.001", "1", "100"]);
    }
}

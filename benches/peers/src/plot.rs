//! The ratios as bars on a logarithmic scale: right of the line Siltstone is ahead.

use std::path::Path;

use plotters::prelude::*;

use crate::Result;
use crate::parent::Results;
use crate::report::{LINES, RIVALS};

const ROW_PIXELS: i32 = 22;
const NAME_PIXELS: i32 = 290;
const WIDTH_PIXELS: i32 = 900;
const TOP_PIXELS: i32 = 50;
/// Ratios from a tenth to tenfold are told apart.
const RATIO_MAX: f64 = 10.0;

/// Where a ratio is on the paper.
#[expect(clippy::cast_possible_truncation, reason = "pixels of a small picture")]
fn column(ratio: f64) -> i32 {
    let width = f64::from(WIDTH_PIXELS - NAME_PIXELS - 60);
    let place = ratio.clamp(1.0 / RATIO_MAX, RATIO_MAX).log(RATIO_MAX) / 2.0 + 0.5;
    NAME_PIXELS + (place * width) as i32
}

pub(crate) fn draw(results: &Results, path: &Path) -> Result<()> {
    let rows: Vec<_> = LINES
        .iter()
        .filter_map(|line| Some((line, line.ratio(results, RIVALS)?)))
        .collect();
    let height = TOP_PIXELS + ROW_PIXELS * i32::try_from(rows.len())? + 20;
    let size = (u32::try_from(WIDTH_PIXELS)?, u32::try_from(height)?);
    let paper = SVGBackend::new(path, size).into_drawing_area();
    paper.fill(&WHITE)?;
    let text = |size: i32| ("sans-serif", size).into_font();
    let title = "Siltstone against the better of RocksDB and fjall; the mark is the goal";
    paper.draw(&Text::new(title, (10, 8), text(15)))?;
    for ratio in [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0] {
        let x = column(ratio);
        let style = if ratio == 1.0 {
            BLACK.stroke_width(2)
        } else {
            BLACK.mix(0.2).stroke_width(1)
        };
        paper.draw(&PathElement::new(
            [(x, TOP_PIXELS - 6), (x, height - 16)],
            style,
        ))?;
        paper.draw(&Text::new(
            format!("{ratio}x"),
            (x - 8, TOP_PIXELS - 20),
            text(12),
        ))?;
    }
    for ((line, ratio), row) in rows.iter().zip(0..) {
        let y = TOP_PIXELS + row * ROW_PIXELS;
        paper.draw(&Text::new(line.name.trim(), (10, y + 3), text(13)))?;
        let color = if *ratio >= 1.0 {
            RGBColor(46, 125, 90)
        } else {
            RGBColor(190, 70, 60)
        };
        let (from, to) = (column(1.0), column(*ratio));
        let corners = [(from.min(to), y + 2), (from.max(to), y + ROW_PIXELS - 4)];
        paper.draw(&Rectangle::new(corners, color.filled()))?;
        let goal = column(line.goal);
        let mark = [(goal, y), (goal, y + ROW_PIXELS - 2)];
        paper.draw(&PathElement::new(mark, BLUE.stroke_width(3)))?;
        paper.draw(&Text::new(
            format!("{ratio:.2}"),
            (WIDTH_PIXELS - 50, y + 3),
            text(13),
        ))?;
    }
    paper.present()?;
    Ok(())
}

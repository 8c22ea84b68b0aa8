// Lines over time, as numbers: what to draw, and nothing about how. Nothing here touches the page.

/** The next number of 1, 2 or 5 with zeros that is at least as large. */
export function roundUp(number) {
  if (number <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(number));
  // 1,000 is 10^2.9999999999999996 of floating point.
  return [1, 2, 5, 10, 20].map((step) => step * power).find((step) => step >= number);
}

/**
 * The lines of some series in a box, as paths of SVG.
 * @param rows points, the oldest first, each with its time under `at`; a count that is null leaves a gap
 * @param series the names of the counts
 * @returns null where there is nothing to draw
 */
export function chart(rows, series, { width = 1_000, height = 200 } = {}) {
  const points = rows.map((row) => ({ ...row, time: Date.parse(row.at) })).filter(({ time }) => !Number.isNaN(time));
  const counts = points.flatMap((point) => series.map((key) => point[key])).filter((count) => typeof count === "number");
  if (!counts.length) return null;
  const most = roundUp(Math.max(...counts));
  const [from, to] = [points[0].time, points.at(-1).time];
  const x = (time) => (to > from ? ((time - from) / (to - from)) * width : width);
  const y = (count) => height - (count / most) * height;
  const round = (number) => Math.round(number * 10) / 10;
  const lines = series.map((key) => {
    let [path, pen] = ["", false];
    for (const point of points) {
      const count = point[key];
      if (typeof count !== "number") {
        pen = false;
        continue;
      }
      // A count holds until the next one is taken: a step, no slope.
      path += pen ? `H${round(x(point.time))}V${round(y(count))}` : `M${round(x(point.time))} ${round(y(count))}`;
      pen = true;
    }
    // A single point is a short line, so that it shows.
    return { key, path: points.length === 1 && path ? `M0 ${path.split(" ")[1]}H${width}` : path };
  });
  return { lines, most, from: points[0].at, to: points.at(-1).at };
}

/** Points for a table: at most so many, evenly, with the first and the last. */
export function thinned(rows, most) {
  if (rows.length <= most) return rows;
  return Array.from({ length: most }, (_, n) => rows[Math.round((n * (rows.length - 1)) / (most - 1))]);
}

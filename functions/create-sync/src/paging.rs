//! Lists that can grow are answered page by page: `?limit=` and `?after=`, and a header `link` while there is more.

use domain::said::Said;
use ports::{Failure, Item, Read, Table};
use serde::de::DeserializeOwned;
use serde_json::Value;
use state::{Deps, doc};

use crate::problem::{Answer, Problem};
use crate::routes::{Request, Response};

/// Rows of a page where the request does not say.
const LIMIT: usize = 100;
/// Rows of a page, at most. Ours: an answer of Lambda's has at most 6 MB, and a row below 10 KB.
const LIMIT_MOST: usize = 500;
/// Bytes of a cursor, at most: a sort key of DynamoDB has 1,024.
const CURSOR_BYTES: usize = 300;
/// Rows of one query.
const QUERY: usize = 500;

/// Which page is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paging {
    /// Rows, at most.
    pub(crate) limit: usize,
    /// Where the page before ended.
    pub(crate) after: Option<String>,
}

/// A page, and the cursor of the next one if there is more.
pub(crate) type Page<T> = (Vec<T>, Option<String>);

impl Paging {
    /// What the request asks for.
    pub(crate) fn read(request: &Request) -> Answer<Self> {
        let limit = match request.param("limit").map(str::parse::<usize>) {
            None => LIMIT,
            Some(Ok(limit)) if (1..=LIMIT_MOST).contains(&limit) => limit,
            Some(_) => {
                let detail = format!("limit: expected a whole number from 1 to {LIMIT_MOST}");
                return Err(Problem::new(400, Said::new("page_limit", detail).with("most", LIMIT_MOST)));
            }
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':');
        let after = request.param("after").map(str::to_owned);
        if after
            .as_ref()
            .is_some_and(|after| after.is_empty() || after.len() > CURSOR_BYTES || !after.bytes().all(plain))
        {
            return Err(bad_cursor());
        }
        Ok(Self { limit, after })
    }

    /// The page of rows that are all at hand, in the order of the keys that `key` makes of them.
    pub(crate) fn of<T>(&self, mut rows: Vec<T>, key: impl Fn(&T) -> String) -> Page<T> {
        if let Some(after) = &self.after {
            rows.retain(|row| key(row) > *after);
        }
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().map(&key).filter(|_| more);
        (rows, next)
    }

    /// The page of the rows of a partition whose sort keys begin with `prefix`, and that `kept` keeps. Rows that are over
    /// are left out: the table sweeps them days late. A cursor is a sort key without the prefix.
    pub(crate) async fn query<T: DeserializeOwned>(
        &self,
        deps: &Deps,
        table: Table,
        pk: &str,
        prefix: &str,
        kept: impl Fn(&T) -> bool,
    ) -> Answer<Page<T>> {
        let mut rows: Vec<(String, T)> = Vec::new();
        let mut after = self.after.as_ref().map(|after| format!("{prefix}{after}"));
        let now = deps.now() / 1_000;
        while rows.len() <= self.limit {
            let page = deps.ports.tables.query(table, pk, prefix, after.as_deref(), QUERY, Read::Consistent).await;
            let page = page.map_err(Failure::from)?;
            for item in page.items {
                let (sk, over) = (item.key.sk.clone(), is_over(&item, now));
                let row: T = doc::read(item)?.value;
                if !over && kept(&row) {
                    rows.push((sk, row));
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| more).map(|(sk, _)| sk[prefix.len()..].to_owned());
        Ok((rows.into_iter().map(|(_, row)| row).collect(), next))
    }

    /// The answer: a bare array, and where the next page is.
    pub(crate) fn answer(&self, request: &Request, rows: Vec<Value>, next: Option<String>) -> Response {
        self.linked(request, Response::json(200, &Value::Array(rows)), next)
    }

    /// The same for a body of another form.
    pub(crate) fn linked(&self, request: &Request, mut response: Response, next: Option<String>) -> Response {
        if let Some(next) = next {
            let kept = request.query.iter().filter(|(name, _)| !matches!(name.as_str(), "limit" | "after"));
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(kept).append_pair("limit", &self.limit.to_string()).append_pair("after", &next);
            let path = request.path.trim_end_matches('/');
            response.headers.push(("link", format!("<{path}?{}>; rel=\"next\"", query.finish())));
        }
        response
    }
}

/// A cursor that no answer has given.
pub(crate) fn bad_cursor() -> Problem {
    let detail = "after: expected a cursor from the header link of an earlier answer";
    Problem::new(400, Said::new("page_cursor", detail))
}

fn is_over(item: &Item, now: u64) -> bool {
    item.expires_at.is_some_and(|at| at <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: &[(&str, &str)]) -> Request {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Request { method: "GET".into(), path: "/syncs/".into(), query, ..Request::default() }
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for (name, value) in [("limit", "0"), ("limit", "501"), ("limit", "-1"), ("limit", "ten"), ("limit", "")] {
            assert_eq!(Paging::read(&request(&[(name, value)])).unwrap_err().status, 400, "{value}");
        }
        for after in ["", "a b", "ü", "a\0", &"a".repeat(CURSOR_BYTES + 1)] {
            assert_eq!(Paging::read(&request(&[("after", after)])).unwrap_err().status, 400, "{after}");
        }
        assert_eq!(Paging::read(&request(&[])).unwrap(), Paging { limit: LIMIT, after: None });
    }

    #[test]
    fn pages_follow_one_another_until_nothing_is_left_and_keep_the_rest_of_the_query() {
        let mut asked = request(&[("limit", "2"), ("munchkin_id", "1 & 2")]);
        let mut seen = Vec::new();
        for _ in 0..3 {
            let paging = Paging::read(&asked).unwrap();
            let (rows, next) = paging.of(vec!["a", "b", "c", "d", "e"], |row| (*row).to_owned());
            seen.push(rows);
            let response = paging.answer(&asked, Vec::new(), next);
            let link = response.headers.iter().find(|(name, _)| *name == "link").map(|(_, link)| link.clone());
            let Some(link) = link else { break };
            let query = link.strip_prefix("</syncs?").unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
            asked.query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
            assert_eq!(asked.param("munchkin_id"), Some("1 & 2"));
        }
        assert_eq!(seen, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
    }
}

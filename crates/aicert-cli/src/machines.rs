//! `aicert machines`.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use serde_json::json;

use crate::args::{DestroyArgs, ListArgs, LogsArgs, WhereElse};
use crate::card::count;
use crate::error::{Exit, Failure};
use crate::fleet::{Entry, Fleet, InUse, Removed, Survey};
use crate::output::Terminal;
use crate::owner;
use crate::run::{block_on, place_of_configuration};
use crate::signals::Signals;
use crate::state::State;
use crate::table::columns;
use crate::text::{Text, one_line};

/// How often a console is looked at.
const CONSOLE_PERIOD: Duration = Duration::from_millis(500);
/// The same in a cloud, which counts who asks how much.
const CLOUD_CONSOLE_PERIOD: Duration = Duration::from_secs(5);
/// How much of a console recognises what of it was shown before.
const BEGINNING: usize = 200;

/// How many machines are removed at a time: each takes minutes in a cloud.
const AT_ONCE: usize = 8;

pub(crate) fn list(args: &ListArgs, terminal: Terminal) -> Result<Exit, Failure> {
    block_on(async {
        let fleet = fleet(&args.where_else)?;
        let Survey { entries, failures } = fleet.survey().await;
        if failures.is_empty() || !entries.is_empty() {
            terminal.result(&table_of(&entries));
        }
        for entry in &entries {
            if let Some(problem) = &entry.problem {
                terminal.warning(&format!("{}: {problem}", entry.job));
            }
        }
        let places: Vec<_> = fleet
            .places_in_clouds()
            .map(|place| {
                json!({
                    "provider": place.provider,
                    "place": place.name(),
                    "owner": place.owner().map(ToString::to_string),
                })
            })
            .collect();
        terminal.json_result(&json!({
            "machines": entries,
            "places": places,
            "owner": owner::owner()?.to_string(),
        }));
        ended(failures, terminal)
    })
}

fn fleet(where_else: &WhereElse) -> Result<Fleet, Failure> {
    let other = where_else.config.as_deref().map(place_of_configuration);
    let other = other.transpose()?.flatten();
    Ok(Fleet::of(State::from_environment()?, other.as_ref()))
}

/// How a command ends in which all this went wrong.
fn ended(mut failures: Vec<Failure>, terminal: Terminal) -> Result<Exit, Failure> {
    let last = failures.pop();
    for failure in &failures {
        terminal.error(failure);
    }
    last.map_or(Ok(Exit::Holds), Err)
}

/// The entry that is meant. If there is none, that may be because not everything could be looked at.
fn chosen<'a>(survey: &'a Survey, name: &str, terminal: Terminal) -> Result<&'a Entry, Failure> {
    Fleet::choose(&survey.entries, name).inspect_err(|_| {
        for failure in &survey.failures {
            terminal.error(failure);
        }
    })
}

/// One line for each machine.
pub(crate) fn table_of(entries: &[Entry]) -> Text {
    if entries.is_empty() {
        return Text::from("There are no machines.");
    }
    let expires = entries.iter().any(|entry| entry.expires.is_some());
    let mut titles = vec!["JOB", "PROVIDER", "STATE", "PHASE", "SINCE"];
    titles.extend(expires.then_some("UNTIL"));
    titles.push("CONFIGURATION");
    let mut rows = vec![titles.into_iter().map(str::to_owned).collect()];
    rows.extend(entries.iter().map(|entry| {
        let state = match entry.in_use {
            Some(false) => format!("{}, nobody follows it", entry.state.in_words()),
            _ => entry.state.in_words().to_owned(),
        };
        let configuration = entry.configuration.as_ref();
        let mut row = vec![
            entry.job.to_string(),
            entry.whereabouts(),
            state,
            entry.activity.clone(),
            entry.created.to_string(),
        ];
        let unknown = || "unknown".to_owned();
        if expires {
            // Those that are in no cloud end when their job does.
            row.push(match entry.expires {
                Some(at) => at.to_string(),
                None if entry.is_in_cloud() => unknown(),
                None => String::new(),
            });
        }
        row.push(configuration.map_or_else(unknown, |path| path.display().to_string()));
        row
    }));
    columns(&rows)
}

pub(crate) fn destroy(args: &DestroyArgs, terminal: Terminal) -> Result<Exit, Failure> {
    block_on(async {
        let fleet = fleet(&args.where_else)?;
        let survey = fleet.survey().await;
        let (chosen, mut failures): (Vec<&Entry>, Vec<Failure>) = match &args.job {
            Some(name) => (vec![chosen(&survey, name, terminal)?], Vec::new()),
            None => (survey.entries.iter().collect(), survey.failures.clone()),
        };
        let in_use = if args.force { InUse::Destroy } else { InUse::Refuse };
        let takes_long = |entry: &&&Entry| entry.is_in_cloud() && entry.machine.is_some();
        let in_clouds = chosen.iter().filter(takes_long).count() as u64;
        if in_clouds > 0 {
            let machines = count(in_clouds, "machine");
            terminal.note(&format!("Removing {machines} in clouds, which takes some minutes …").into());
        }
        let fleet = &fleet;
        let removed = stream::iter(chosen)
            .map(|entry| async move { (entry.job.to_string(), fleet.destroy(entry, in_use).await) })
            .buffered(AT_ONCE);
        let mut destroyed = Vec::new();
        for (job, removed) in removed.collect::<Vec<_>>().await {
            match removed {
                Ok(removed) => destroyed.push((job, removed)),
                // The others are destroyed all the same.
                Err(failure) => failures.push(failure),
            }
        }
        if !destroyed.is_empty() || failures.is_empty() {
            terminal.result(&in_words(&destroyed));
        }
        let jobs: Vec<_> = destroyed.iter().map(|(job, _)| job).collect();
        terminal.json_result(&json!({ "destroyed": jobs }));
        ended(failures, terminal)
    })
}

/// Says what was destroyed.
fn in_words(destroyed: &[(String, Removed)]) -> Text {
    match destroyed {
        [] => "There are no machines to destroy.".into(),
        [(job, Removed::Machine)] => Text::from("Destroyed the machine of the job ")
            .bold(job)
            .plain("."),
        [(job, Removed::Record)] => Text::from("Forgot the job ").bold(job).plain("."),
        all => {
            let number = |what| all.iter().filter(|(_, removed)| *removed == what).count() as u64;
            let (machines, records) = (number(Removed::Machine), number(Removed::Record));
            let mut words = Vec::new();
            if machines > 0 {
                words.push(format!("Destroyed {}.", count(machines, "machine")));
            }
            if records > 0 {
                words.push(format!("Forgot {}.", count(records, "job")));
            }
            words.join(" ").into()
        }
    }
}

pub(crate) fn logs(args: &LogsArgs, terminal: Terminal) -> Result<Exit, Failure> {
    block_on(async {
        let fleet = fleet(&args.where_else)?;
        let survey = fleet.survey().await;
        let entry = chosen(&survey, &args.job, terminal)?;
        let console = fleet.console(entry).await?;
        if args.follow {
            let mut signals = Signals::listen()?;
            tokio::select! {
                number = signals.next() => return Ok(Exit::Signal(number)),
                done = follow(&fleet, entry, terminal) => done?,
            }
            return Ok(Exit::Holds);
        }
        show(&console, terminal);
        terminal.json_result(&json!({ "job": entry.job.as_str(), "console": console }));
        Ok(Exit::Holds)
    })
}

/// Shows what a console gets, until its machine has ended.
async fn follow(fleet: &Fleet, entry: &Entry, terminal: Terminal) -> Result<(), Failure> {
    let period = if entry.is_in_cloud() {
        CLOUD_CONSOLE_PERIOD
    } else {
        CONSOLE_PERIOD
    };
    let mut before = String::new();
    loop {
        // In this order: what a machine writes last is there when it has ended.
        let running = fleet.is_running(entry).await?;
        let mut console = fleet.console(entry).await?;
        if running {
            // The rest of the last line comes later, and what the provider's programs said, behind it, last.
            let end = console.find("\n-- ").or(console.rfind('\n'));
            console.truncate(end.map_or(0, |end| end + 1));
        }
        let new = added(&before, &console);
        show(new, terminal);
        if !new.is_empty() {
            terminal.json_event(&json!({ "event": "console", "text": new }));
        }
        if !running {
            return Ok(());
        }
        before = console;
        tokio::time::sleep(period).await;
    }
}

/// What a console has more than before. Only the end of a long one is ever seen: its beginning may be gone.
fn added<'a>(before: &str, now: &'a str) -> &'a str {
    if let Some(new) = now.strip_prefix(before) {
        return new;
    }
    let mut end = now.len().min(BEGINNING);
    while !now.is_char_boundary(end) {
        end -= 1;
    }
    let mut places = before.match_indices(&now[..end]);
    places
        .find_map(|(at, _)| now.strip_prefix(&before[at..]))
        .unwrap_or(now)
}

/// A console as it was, but for what would do something to the terminal.
fn show(console: &str, terminal: Terminal) {
    let mut text = Text::new();
    for line in console.lines() {
        text = text.plain(&one_line(line.trim_end_matches('\r'))).line_end();
    }
    if !console.is_empty() {
        terminal.result(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::added;

    #[test]
    fn a_console_is_shown_once() {
        assert_eq!(added("", "a\nb\n"), "a\nb\n");
        assert_eq!(added("a\nb\n", "a\nb\nc\n"), "c\n");
        assert_eq!(added("a\nb\n", "a\nb\n"), "");
        // What came first is not kept.
        let lines = |from: u32, to: u32| (from..to).map(|n| format!("line ü {n}\n")).collect::<String>();
        assert_eq!(added(&lines(0, 100), &lines(50, 103)), lines(100, 103));
        let cut = &lines(50, 103)[4..];
        assert_eq!(added(&lines(0, 100), cut), lines(100, 103));
        // All of it was missed.
        assert_eq!(added(&lines(0, 100), &lines(200, 300)), lines(200, 300));
    }
}

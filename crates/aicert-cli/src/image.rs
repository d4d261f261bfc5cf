//! `aicert image`: measuring images, building them, building them again to compare, and publishing them.

mod build;
mod publish;
mod recipe;
mod verify;

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use aicert_verify::image::{self, ImageError, MeasureOptions, UKI_LIMIT};
use aicert_verify::reference::{ImageReference, ReferenceValues};

use crate::args::MeasureArgs;
use crate::card::count;
use crate::error::{Exit, Failure};
use crate::formats;
use crate::output::Terminal;
use crate::source;
use crate::table::{Row, table};
use crate::text::{Text, one_line};

pub(crate) use build::build;
pub(crate) use publish::{discard, publish};
pub(crate) use verify::verify;

/// What is looked at to tell people what a file looks like.
const BEGINNING: u64 = 4096;

pub(crate) fn measure(args: &MeasureArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let mut options = MeasureOptions::default();
    options.name = args.name.clone();
    if let Some(path) = &args.path {
        options.path = path.clone();
    }
    options.assume_stub = args.assume_stub;
    let image = read(&args.file, &options)?;
    terminal.result(&text(&image, &args.file));
    // As it is, this is a file of reference values.
    terminal.json_result(&ReferenceValues {
        images: vec![image],
        ..ReferenceValues::default()
    });
    Ok(Exit::Holds)
}

fn read(path: &Path, options: &MeasureOptions) -> Result<ImageReference, Failure> {
    if path == Path::new("-") {
        // A pipe cannot be read twice, so it can only bring what fits into memory: a UKI.
        let bytes = source::read(path, UKI_LIMIT, "the image")?;
        let measured = image::measure(Cursor::new(&bytes), options);
        return measured.map_err(|error| not_computed(path, &error, &bytes));
    }
    let unreadable = |error: std::io::Error| {
        Failure::misuse(format!("could not read the image {}", path.display())).because(&error)
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(unreadable(std::io::ErrorKind::IsADirectory.into()));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err(Failure::misuse(format!("the image {} is empty", path.display())));
    }
    image::measure(file, options).map_err(|error| {
        let beginning = source::read_bounded(path, BEGINNING, "the image").unwrap_or_default();
        not_computed(path, &error, &beginning)
    })
}

/// Says why nothing is computed, and what can be done; `beginning` is that of the file, or all of it.
fn not_computed(path: &Path, error: &ImageError, beginning: &[u8]) -> Failure {
    let shown = path.display();
    let failure =
        Failure::misuse(format!("it cannot be computed what booting {shown} measures")).because(error);
    match error {
        ImageError::Unknown { .. } => {
            failure.maybe_help(formats::recognise(beginning).map(|found| format!("it looks like {found}")))
        }
        ImageError::Stub { .. } => failure.help(
            "`--assume-stub VERSION` treats it as another version; only a comparison with a machine shows whether that is right",
        ),
        ImageError::NoFile { .. } => failure.help("`--path PATH` names another file on the EFI system partition"),
        _ => failure,
    }
}

fn text(image: &ImageReference, file: &Path) -> Text {
    let mut rows = vec![
        Row::new("name", image.name.as_str()),
        Row::new("sha256", image.sha256.to_string()),
    ];
    for (label, value) in [
        ("built from", &image.build),
        ("systemd-stub", &image.stub),
        ("kernel", &image.kernel),
        ("command line", &image.command_line),
    ] {
        rows.push(Row::new(label, value.as_deref().unwrap_or("none")));
    }
    let mut text = Text::new()
        .bold("IMAGE")
        .plain(&format!("  {}\n", one_line(&file.display().to_string())))
        .append(table(&rows, None))
        .line_end()
        .bold(&format!(
            "{}, which booting it leaves in a log in this order\n",
            count(image.events.len() as u64, "event")
        ));
    for event in &image.events {
        let optional = if event.optional {
            " (depends on the machine)"
        } else {
            ""
        };
        text = text
            .plain(&format!("{:>3}  ", event.pcr.to_string()))
            .bold(&event.event_type)
            .plain(&format!(" {}{optional}\n", one_line(&event.what)))
            .dim(&format!("     sha256:{}\n", event.digests.sha256));
    }
    text = text
        .line_end()
        .bold("PCRs after booting it with firmware derived from EDK II\n");
    for (bank, values) in &image.pcrs {
        for (pcr, value) in &values.0 {
            text = text.plain(&format!(
                "{:>3}  {bank}  {}\n",
                pcr.to_string(),
                hex::encode(value)
            ));
        }
    }
    text.line_end()
        .dim("`--json` writes this as reference values for `aicert verify --reference-values`.\n")
}

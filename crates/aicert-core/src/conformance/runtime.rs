//! What every [`Runtime`] must do, shown with jobs that try what they must not be able to.
//!
//! Each function runs jobs of its own and cleans up after itself; they may run at the same time. The image must have
//! `python3`: its standard library is what the jobs are written in.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::digest::ImageDigest;
use crate::event::{ExecutionOutcome, Variable};
use crate::progress::{Progress, ProgressEvent};
use crate::runtime::{
    BuildRequest, ExecutionReport, ExecutionRequest, JobId, Limits, Mount, ResolvedImage, Runtime,
};
use crate::spec::ImageSpec;

/// The runtime under test, and what it is tested with.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The runtime.
    pub runtime: &'a dyn Runtime,
    /// An image with `python3`.
    pub image: &'a ImageSpec,
    /// Starts the ids of all jobs: lowercase letters, digits and `-`, at most 20, used by no other test at the same time.
    pub prefix: &'a str,
}

/// One job of a test: a Python program, its log and its outputs.
struct Job {
    request: ExecutionRequest,
    folder: tempfile::TempDir,
}

impl Subject<'_> {
    async fn image(&self) -> ResolvedImage {
        self.runtime.check().await.expect("the engine must be usable");
        self.runtime
            .resolve_image(self.image, &Progress::ignored())
            .await
            .expect("resolve_image")
    }

    async fn job(&self, name: &str, program: &str) -> Job {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let outputs = folder.path().join("outputs");
        let source = folder.path().join("src");
        for path in [&outputs, &source] {
            fs::create_dir(path).expect("a folder");
        }
        fs::write(source.join("given.txt"), "given").expect("a file");
        let mount = |host: &Path, container: &str, writable| Mount {
            host: host.into(),
            container: container.into(),
            writable,
        };
        let request = ExecutionRequest {
            job: format!("{}-{name}", self.prefix)
                .parse()
                .expect("prefix and name form a job id"),
            image: self.image().await.digest,
            command: vec!["python3".into(), "-c".into(), program.into()],
            working_directory: "/workspace/src".into(),
            environment: Vec::new(),
            mounts: vec![
                mount(&source, "/workspace/src", false),
                mount(&outputs, "/workspace/outputs", true),
            ],
            gpus: Vec::new(),
            limits: Limits {
                time: Some(Duration::from_secs(120)),
                ..Limits::default()
            },
            log_file: folder.path().join("job.log"),
            progress: Progress::ignored(),
        };
        Job { request, folder }
    }

    async fn run(&self, job: &Job) -> (ExecutionReport, String) {
        let report = self.runtime.run(job.request.clone()).await.expect("run");
        self.runtime.clean_up(&job.request.job).await.expect("clean_up");
        let log = fs::read(&job.request.log_file).expect("the log file must exist");
        (report, String::from_utf8_lossy(&log).into_owned())
    }

    /// Runs a program that ends with 0 if all is as it should be, and otherwise says what is not.
    async fn holds(&self, name: &str, program: &str) {
        let job = self.job(name, program).await;
        let (report, log) = self.run(&job).await;
        assert_eq!(
            (report.outcome, report.exit_code),
            (ExecutionOutcome::Exited, 0),
            "{name}: {log}"
        );
    }
}

/// An image is resolved to the same digest again, by its name and by its digest; without packages the built image is the
/// resolved one; its default command is a command.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn images_are_found_again(subject: Subject<'_>) {
    let first = subject.image().await;
    assert_eq!(
        subject.image().await,
        first,
        "an image must resolve to the same digest again"
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let job: JobId = format!("{}-images", subject.prefix)
        .parse()
        .expect("prefix and name form a job id");
    let request = BuildRequest {
        job: job.clone(),
        image: first.clone(),
        packages: Vec::new(),
        packages_dir: folder.path().into(),
        progress: Progress::ignored(),
    };
    let built = subject.runtime.build(request).await.expect("build");
    assert_eq!(
        built, first.digest,
        "without packages, the image is the resolved one"
    );
    subject.runtime.clean_up(&job).await.expect("clean_up");
    subject
        .runtime
        .default_command(first.digest)
        .await
        .expect("default_command must find the image by its digest alone");

    let absent = ImageDigest::of(b"no image has this digest");
    assert!(
        subject.runtime.default_command(absent).await.is_err(),
        "an image that is not there must not be found"
    );
}

/// Exit statuses, the wall time, both output streams, outputs and the working directory are what the job made them.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn a_job_is_reported_as_it_ran(subject: Subject<'_>) {
    let program = "import os, sys, time\n\
        print('to stdout'); print('to stderr', file=sys.stderr); sys.stdout.buffer.write(b'\\xff\\n')\n\
        open('/workspace/outputs/model', 'w').write(open('given.txt').read() + ' ' + os.getcwd())\n\
        time.sleep(0.5); sys.stdout.flush(); os._exit(7)";
    let mut job = subject.job("report", program).await;
    let (progress, mut events) = Progress::channel(100);
    job.request.progress = progress;
    let report = subject
        .runtime
        .run(job.request.clone())
        .await
        .expect("a job that fails is a report, not an error");
    subject
        .runtime
        .clean_up(&job.request.job)
        .await
        .expect("clean_up");
    assert_eq!((report.outcome, report.exit_code), (ExecutionOutcome::Exited, 7));
    assert!(report.wall >= Duration::from_millis(500), "{:?}", report.wall);

    let log = fs::read(&job.request.log_file).expect("the log file must exist");
    for line in [&b"to stdout\n"[..], b"to stderr\n", b"\xff\n"] {
        assert!(
            log.windows(line.len()).any(|part| part == line),
            "the log has every byte: {log:?}"
        );
    }
    let mut shown = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let ProgressEvent::JobOutput { is_error, line } = event {
            shown.push((is_error, line));
        }
    }
    for line in [(false, "to stdout"), (true, "to stderr"), (false, "\u{fffd}")] {
        assert!(
            shown.contains(&(line.0, line.1.into())),
            "{line:?} is not among {shown:?}"
        );
    }
    let model = job.folder.path().join("outputs/model");
    assert_eq!(
        fs::read_to_string(&model).expect("the output is on the host"),
        "given /workspace/src"
    );
    fs::remove_file(model).expect("outputs belong to the user who asked for the job");
}

/// 200,000 lines that nobody reads are all in the log file, in order, and do not hold the job up.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn output_is_complete_and_never_waited_for(subject: Subject<'_>) {
    let program = "import sys\nfor n in range(200000):\n    print(n, flush=True)\nprint('x' * 5_000_000)";
    let mut job = subject.job("chatty", program).await;
    // A reader that has stopped reading; held until the end, so that the channel stays open.
    let (progress, stuck) = Progress::channel(1);
    job.request.progress = progress;
    let (report, log) = subject.run(&job).await;
    drop(stuck);
    assert_eq!((report.outcome, report.exit_code), (ExecutionOutcome::Exited, 0));
    let mut lines = log.lines();
    for n in 0..200_000 {
        assert_eq!(
            lines.next(),
            Some(n.to_string()).as_deref(),
            "line {n} must be there, and in its place"
        );
    }
    assert_eq!(
        lines.next().map(str::len),
        Some(5_000_000),
        "a line may be of any length"
    );
    assert_eq!(lines.next(), None);
}

/// Arguments, working directory and environment reach the job as they are: no shell reads them.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn nothing_is_given_to_a_shell(subject: Subject<'_>) {
    let hostile = [
        "$(touch /workspace/outputs/pwned)",
        "`id`",
        "; id",
        "a b",
        "'\"\\",
        "*",
        "${HOME}",
        "--rm",
        "&& id",
        "\n",
        "ü",
    ];
    let mut job = subject
        .job(
            "shell",
            "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['HOSTILE']]))",
        )
        .await;
    job.request
        .command
        .extend(hostile.iter().map(|&argument| argument.to_owned()));
    job.request.environment = vec![Variable {
        name: "HOSTILE".into(),
        value: hostile.concat(),
    }];
    let (report, log) = subject.run(&job).await;
    assert_eq!(report.exit_code, 0, "{log}");
    let seen: (Vec<String>, String) = serde_json::from_str(&log).expect("the job prints JSON");
    assert_eq!(seen.0, hostile);
    assert_eq!(seen.1, hostile.concat());
    assert_eq!(
        fs::read_dir(job.folder.path().join("outputs"))
            .expect("outputs")
            .count(),
        0,
        "a shell ran"
    );
}

/// The job has no network but loopback.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn a_job_has_no_network(subject: Subject<'_>) {
    let program = "import socket, sys\n\
        names = [name for _, name in socket.if_nameindex()]\n\
        wrong = [] if set(names) <= {'lo'} else [f'interfaces: {names}']\n\
        for address in [('1.1.1.1', 443), ('8.8.8.8', 53), ('172.17.0.1', 22), ('169.254.169.254', 80)]:\n\
        \x20   try:\n\
        \x20       socket.create_connection(address, timeout=3); wrong.append(f'connected to {address}')\n\
        \x20   except OSError: pass\n\
        try:\n\
        \x20   wrong.append(socket.getaddrinfo('example.org', 443))\n\
        except OSError: pass\n\
        if wrong: sys.exit(str(wrong))";
    subject.holds("network", program).await;
}

/// The job has no capabilities and cannot gain any; sees no sockets, no TPM and no disks; cannot mount, load modules,
/// or see processes of the host; and writes nowhere but where it may.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn a_job_is_confined(subject: Subject<'_>) {
    let program = r#"
import ctypes, glob, os, socket, stat, sys
wrong = []
status = dict(line.split(':\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\t' in line)
for name in ['CapEff', 'CapPrm', 'CapInh', 'CapBnd', 'CapAmb']:
    if int(status[name], 16): wrong.append(f'{name} is {status[name]}')
if status['NoNewPrivs'] != '1': wrong.append('new privileges can be gained')
if status['Seccomp'] == '0': wrong.append('no seccomp')
for pattern in ['/dev/tpm*', '/dev/sd*', '/dev/vd*', '/dev/nvme*', '/dev/kvm', '/dev/mem', '/dev/nvidia*', '/dev/fuse', '/dev/mapper/*']:
    wrong += glob.glob(pattern)
for root, folders, files in os.walk('/'):
    folders[:] = [f for f in folders if os.path.join(root, f) not in ('/proc', '/sys')]
    for name in files:
        try:
            if stat.S_ISSOCK(os.lstat(os.path.join(root, name)).st_mode): wrong.append('socket ' + os.path.join(root, name))
        except OSError: pass
for path in ['/workspace/src/new', '/workspace/src/given.txt', '/proc/sys/kernel/hostname', '/sys/kernel/x', '/proc/sysrq-trigger']:
    try:
        open(path, 'w').close(); wrong.append('could write ' + path)
    except OSError: pass
open('/workspace/outputs/new', 'w').close()
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0: wrong.append('could mount')
if libc.mount(None, b'/workspace/src', None, 32 | 4096, None) == 0: wrong.append('could remount')
if libc.unshare(0x10000000) == 0: wrong.append('could make a user namespace')
try:
    os.mknod('/tmp/disk', 0o600 | stat.S_IFBLK, os.makedev(8, 0)); wrong.append('could make a device')
except OSError: pass
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW); wrong.append('raw socket')
except OSError: pass
others = [p for p in os.listdir('/proc') if p.isdigit()]
if len(others) > 4: wrong.append(f'sees {len(others)} processes')
if wrong: sys.exit('\n'.join(wrong))
"#;
    subject.holds("confined", program).await;
}

/// The job's environment is the request's and the image's: nothing of the process that asked for it, whose variable
/// `canary` (name and value) is set by the caller.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn the_callers_environment_stays_outside(subject: Subject<'_>, canary: (&str, &str)) {
    assert_eq!(
        std::env::var(canary.0).as_deref(),
        Ok(canary.1),
        "the caller must have set the variable"
    );
    let mut job = subject.job("environment", "import os\nfor item in os.environ.items(): print('='.join(item))\nprint(open('/proc/1/environ').read())").await;
    job.request.environment = vec![Variable {
        name: "GIVEN".into(),
        value: "a=b c".into(),
    }];
    let (report, log) = subject.run(&job).await;
    assert_eq!(report.exit_code, 0, "{log}");
    assert!(log.lines().any(|line| line == "GIVEN=a=b c"), "{log}");
    assert!(
        !log.contains(canary.0) && !log.contains(canary.1),
        "the caller's environment is in the container: {log}"
    );
}

/// Time, memory and processes end where the request says.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn limits_hold(subject: Subject<'_>) {
    let mut job = subject.job("time", "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)").await;
    job.request.limits.time = Some(Duration::from_secs(2));
    let began = Instant::now();
    let (report, log) = subject.run(&job).await;
    assert_eq!(report.outcome, ExecutionOutcome::TimedOut, "{log}");
    assert_ne!(report.exit_code, 0, "a job that was stopped did not succeed");
    assert_eq!(log, "up\n", "what was printed before the limit is kept");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());

    let mut job = subject
        .job(
            "memory",
            "held = []\nwhile True: held.append(bytearray(16 << 20))",
        )
        .await;
    job.request.limits.memory_bytes = Some(128 << 20);
    let (report, log) = subject.run(&job).await;
    assert_eq!(report.outcome, ExecutionOutcome::OutOfMemory, "{log}");
    assert_ne!(report.exit_code, 0, "a job that was stopped did not succeed");

    let program = "import os, sys, time\nchildren = 0\n\
        try:\n    while children < 200:\n        if os.fork() == 0: time.sleep(600)\n        children += 1\n\
        except OSError: pass\nprint(children)";
    let mut job = subject.job("processes", program).await;
    job.request.limits.processes = Some(32);
    let (report, log) = subject.run(&job).await;
    assert_eq!(
        (report.outcome, report.exit_code),
        (ExecutionOutcome::Exited, 0),
        "{log}"
    );
    let children: u32 = log.trim().parse().expect("the job prints a number");
    assert!((1..32).contains(&children), "{children} processes were started");
}

/// When `run` has returned, no process of the job is left, not even one that the job left behind on purpose.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn nothing_outlives_the_job(subject: Subject<'_>) {
    let program = "import os, time\n\
        if os.fork() == 0:\n    os.setsid()\n\
        \x20   while True:\n        open('/workspace/outputs/alive', 'a').write('x'); time.sleep(0.01)\n\
        time.sleep(0.5)";
    let job = subject.job("orphan", program).await;
    let (report, log) = subject.run(&job).await;
    assert_eq!(
        (report.outcome, report.exit_code),
        (ExecutionOutcome::Exited, 0),
        "{log}"
    );
    let alive = job.folder.path().join("outputs/alive");
    let size = || fs::metadata(&alive).expect("the orphan wrote").len();
    let before = size();
    assert!(before > 0);
    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(300)))
        .await
        .expect("a pause");
    assert_eq!(size(), before, "a process of the job still writes");
}

/// A job whose future is dropped, at whatever moment, is gone after `clean_up`; cleaning up again, or what never was,
/// succeeds.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn a_dropped_job_is_cleaned_up(subject: Subject<'_>) {
    let program =
        "import time\nwhile True:\n    open('/workspace/outputs/alive', 'a').write('x'); time.sleep(0.01)";
    for pause in [0, 5, 20, 50, 100, 200, 400, 1500] {
        let job = subject.job("dropped", program).await;
        let timeout = tokio::time::timeout(
            Duration::from_millis(pause),
            subject.runtime.run(job.request.clone()),
        );
        assert!(timeout.await.is_err(), "the job runs until it is stopped");
        subject
            .runtime
            .clean_up(&job.request.job)
            .await
            .expect("clean_up");
        subject
            .runtime
            .clean_up(&job.request.job)
            .await
            .expect("clean_up again");
        let size = || fs::metadata(job.folder.path().join("outputs/alive")).map_or(0, |data| data.len());
        let before = size();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(size(), before, "a job dropped after {pause} ms still runs");
        assert!(pause < 1500 || before > 0, "after {pause} ms a job has started");
        let left = subject.runtime.leftovers().await.expect("leftovers");
        assert!(!left.contains(&job.request.job), "{left:?}");
    }
    let never = format!("{}-never", subject.prefix)
        .parse()
        .expect("prefix and name form a job id");
    subject
        .runtime
        .clean_up(&never)
        .await
        .expect("cleaning up what never was succeeds");
}

/// A job that runs is no leftover while the process that asked for it lives.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn a_running_job_is_no_leftover(subject: Subject<'_>) {
    let job = subject
        .job(
            "running",
            "import time\nopen('/workspace/outputs/up', 'w').close(); time.sleep(600)",
        )
        .await;
    let up = job.folder.path().join("outputs/up");
    let watch = async {
        while !up.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        subject.runtime.leftovers().await.expect("leftovers")
    };
    tokio::select! {
        report = subject.runtime.run(job.request.clone()) => panic!("the job runs until it is stopped: {report:?}"),
        left = watch => assert!(!left.contains(&job.request.job), "{left:?}"),
    }
    subject
        .runtime
        .clean_up(&job.request.job)
        .await
        .expect("clean_up");
}

/// What cannot run is an error or a failed job, never a success: a program that is not there, an image that is not
/// there, a folder that is not there.
///
/// # Panics
///
/// When the runtime breaks its contract.
pub async fn what_cannot_run_does_not_succeed(subject: Subject<'_>) {
    let mut job = subject.job("no-program", "").await;
    job.request.command = vec!["no-such-program".into()];
    let result = subject.runtime.run(job.request.clone()).await;
    subject
        .runtime
        .clean_up(&job.request.job)
        .await
        .expect("clean_up");
    assert!(
        !matches!(&result, Ok(report) if report.exit_code == 0),
        "{result:?}"
    );

    let mut job = subject.job("no-image", "").await;
    job.request.image = ImageDigest::of(b"no image has this digest");
    assert!(
        subject.runtime.run(job.request.clone()).await.is_err(),
        "an image that is not there"
    );
    subject
        .runtime
        .clean_up(&job.request.job)
        .await
        .expect("clean_up");

    let mut job = subject.job("no-folder", "").await;
    job.request.mounts.push(Mount {
        host: job.folder.path().join("absent"),
        container: "/workspace/absent".into(),
        writable: false,
    });
    assert!(
        subject.runtime.run(job.request.clone()).await.is_err(),
        "a folder that is not there"
    );
    subject
        .runtime
        .clean_up(&job.request.job)
        .await
        .expect("clean_up");
}

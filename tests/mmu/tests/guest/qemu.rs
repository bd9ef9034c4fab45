//! A guest of `tests/mmu/guest` in stock QEMU, and the memory that it shares with this process.
//!
//! QEMU keeps the machine's memory in a file. The guest waits until the number of a batch in its
//! control block changes, performs the cases there and says so; this side reads and writes the
//! file. What a word of a case means: `ask`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Words of a case: five entries (address, value), then what `ask` has.
pub(crate) type Raw = [u64; 24];
/// Words of an answer.
pub(crate) type Answer = [u64; 12];

/// The control block, from the beginning of memory: number of the batch asked for, number of the
/// batch done, ready, number of cases, a word for the architecture, addresses of cases and answers,
/// another word for the architecture.
const CONTROL: u64 = 0x40_0000;
const CASES: u64 = 0x100_0000;
const ANSWERS: u64 = 0x200_0000;
/// Bytes from there on that a guest of its own tables has to have.
pub(crate) const MEMORY: u64 = 0x400_0000;
/// Cases of a batch: they end before the answers begin.
pub(crate) const BATCH: usize = 0x1_0000;

/// No batch takes so long.
const PATIENCE: Duration = Duration::from_secs(300);

/// A machine that QEMU has.
pub(crate) struct Machine {
    pub(crate) program: &'static str,
    /// Debian's package.
    pub(crate) package: &'static str,
    pub(crate) arguments: &'static [&'static str],
    /// Option of QEMU that loads the guest, and its file.
    pub(crate) image: (&'static str, &'static str),
    /// Where memory begins.
    pub(crate) base: u64,
    pub(crate) big_endian: bool,
}

/// A running guest.
pub(crate) struct Guest {
    child: Child,
    memory: File,
    path: PathBuf,
    machine: &'static Machine,
    batch: u64,
}

/// The version that answers here: another one may differ from the manual elsewhere.
const VERSION: &str = "7.2.";

/// What version of QEMU is installed, if any.
fn version(machine: &Machine) -> Option<String> {
    let out = match Command::new(machine.program).arg("--version").output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        other => other.unwrap_or_else(|e| panic!("{}: {e}", machine.program)),
    };
    let said = String::from_utf8_lossy(&out.stdout);
    let version = said.split_whitespace().skip_while(|word| *word != "version").nth(1);
    Some(version.unwrap_or("of no version that it tells").to_owned())
}

/// Says what is left out, past the harness, which keeps back what a test prints.
fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

impl Guest {
    /// Starts the machine and waits until the guest is ready; `None`, and loudly, where there is no
    /// such QEMU or it is another version.
    pub(crate) fn start(machine: &'static Machine, arguments: &[&str]) -> Option<Self> {
        let Some(version) = version(machine) else {
            skipped(&format!(
                "page tables against {}: it is not installed (Debian: {})",
                machine.program, machine.package
            ));
            return None;
        };
        if !version.starts_with(VERSION) {
            skipped(&format!(
                "page tables against {}: asked of version {VERSION}x only, this is {version}",
                machine.program
            ));
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{number}", machine.program, std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let memory =
            OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        memory.set_len(1 << 30).unwrap();
        let backend =
            format!("memory-backend-file,id=m,size=1G,share=on,mem-path={}", path.display());
        let image = format!("{}/guest/{}", env!("CARGO_MANIFEST_DIR"), machine.image.1);
        let image = if machine.image.0 == "-device" {
            format!("loader,file={image},cpu-num=0")
        } else {
            image
        };
        let mut command = Command::new(machine.program);
        command.args(machine.arguments).args(arguments).args([machine.image.0, &image]);
        command.args(["-object", &backend, "-m", "1G", "-accel", "tcg", "-smp", "1"]);
        command.args(["-display", "none", "-serial", "none", "-monitor", "none", "-nodefaults"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", machine.program));
        let mut guest = Self { child, memory, path, machine, batch: 0 };
        guest.wait("to be ready", |g| g.word(CONTROL + 16) == 1);
        guest.put(CONTROL + 40, machine.base + CASES);
        guest.put(CONTROL + 48, machine.base + ANSWERS);
        Some(guest)
    }

    fn wait(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                let mut said = String::new();
                let _ = self.child.stderr.take().map(|mut e| e.read_to_string(&mut said));
                panic!("{} ended: {status}: {said}", self.machine.program);
            }
            assert!(began.elapsed() < PATIENCE, "{}: waited {what}", self.machine.program);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The word at an offset of memory.
    fn word(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, offset).unwrap();
        self.from_bytes(bytes)
    }

    #[allow(clippy::wrong_self_convention)]
    fn from_bytes(&self, bytes: [u8; 8]) -> u64 {
        if self.machine.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) }
    }

    fn to_bytes(&self, word: u64) -> [u8; 8] {
        if self.machine.big_endian { word.to_be_bytes() } else { word.to_le_bytes() }
    }

    /// Writes a word at an offset of memory.
    pub(crate) fn put(&self, offset: u64, word: u64) {
        self.memory.write_all_at(&self.to_bytes(word), offset).unwrap();
    }

    /// The control block's first word for the architecture.
    pub(crate) fn set_own(&self, word: u64) {
        self.put(CONTROL + 32, word);
    }

    /// Its other one.
    pub(crate) fn set_second(&self, word: u64) {
        self.put(CONTROL + 56, word);
    }

    /// Has at most [`BATCH`] cases performed.
    pub(crate) fn run(&mut self, cases: &[Raw]) -> Vec<Answer> {
        assert!(cases.len() <= BATCH);
        let bytes: Vec<u8> = cases.iter().flatten().flat_map(|w| self.to_bytes(*w)).collect();
        self.memory.write_all_at(&bytes, CASES).unwrap();
        self.put(CONTROL + 24, cases.len() as u64);
        self.batch += 1;
        self.put(CONTROL, self.batch);
        self.wait("for a batch", |g| g.word(CONTROL + 8) == g.batch);
        let mut bytes = vec![0; cases.len() * size_of::<Answer>()];
        self.memory.read_exact_at(&mut bytes, ANSWERS).unwrap();
        let words: Vec<u64> =
            bytes.chunks_exact(8).map(|b| self.from_bytes(b.try_into().unwrap())).collect();
        words.chunks_exact(12).map(|a| a.try_into().unwrap()).collect()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It has no way of ending by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

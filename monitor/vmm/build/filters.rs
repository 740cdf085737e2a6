//! Compiles the table of system calls to programs for the kernel, as a Rust file.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::table::{Allowed, OWN_PROCESS, TABLE, When};
use crate::thread::Thread;

/// Instructions (linux/bpf_common.h, linux/seccomp.h).
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const RETURN_ERROR: u32 = 0x0005_0000;

pub(super) fn compile() -> Result<(), Box<dyn Error>> {
    let mut text = format!("const OWN_PROCESS: u32 = {OWN_PROCESS:#x};\n");
    writeln!(text, "static FILTERS: [&[Instruction]; {}] = [", Thread::ALL.len())?;
    for thread in Thread::ALL {
        let program: Vec<_> =
            program(thread)?.iter().map(|it| format!("({:#x}, {}, {}, {:#x})", it.code, it.jt, it.jf, it.k)).collect();
        writeln!(text, "    &[{}],", program.join(", "))?;
    }
    text.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("filters.rs"), text)?;
    Ok(())
}

fn program(thread: Thread) -> Result<BpfProgram, Box<dyn Error>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for allowed in TABLE.iter().filter(|allowed| thread == Thread::Setup || allowed.threads.contains(&thread)) {
        let rules = rules.entry(allowed.call).or_default();
        // Without conditions, a call is allowed by an empty list.
        if !allowed.when.is_empty() {
            rules.extend(alternatives(allowed)?);
        }
    }
    let filter = SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?;
    let mut program: BpfProgram = filter.try_into()?;
    if matches!(thread, Thread::Setup | Thread::Main) {
        program.splice(0..0, without_clone3()?);
    }
    Ok(program)
}

/// Returns the rules of a call: all conditions hold in one of them.
fn alternatives(allowed: &Allowed) -> Result<Vec<SeccompRule>, Box<dyn Error>> {
    let mut alternatives = vec![Vec::new()];
    for when in allowed.when {
        let (argument, pairs) = comparisons(when);
        let mut longer = Vec::new();
        for before in &alternatives {
            for (operation, value) in &pairs {
                let condition =
                    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation.clone(), (*value).into())?;
                let mut conditions: Vec<SeccompCondition> = Clone::clone(before);
                conditions.push(condition);
                longer.push(conditions);
            }
        }
        alternatives = longer;
    }
    alternatives.into_iter().map(|conditions| Ok(SeccompRule::new(conditions)?)).collect()
}

/// Returns the argument and what it is compared with.
fn comparisons(when: &When) -> (u8, Vec<(SeccompCmpOp, u32)>) {
    match *when {
        When::Is(argument, values) => (argument, values.iter().map(|value| (SeccompCmpOp::Eq, *value)).collect()),
        When::Lacks(argument, bits) => (argument, vec![(SeccompCmpOp::MaskedEq(bits.into()), 0)]),
        When::Has(argument, bits) => (argument, vec![(SeccompCmpOp::MaskedEq(bits.into()), bits)]),
        When::IsOwnProcess(argument) => (argument, vec![(SeccompCmpOp::Eq, OWN_PROCESS)]),
    }
}

/// Returns instructions that answer `clone3` with ENOSYS and go on for every other call.
fn without_clone3() -> Result<[sock_filter; 3], Box<dyn Error>> {
    let instruction = |code, (jt, jf), k| sock_filter { code, jt, jf, k };
    Ok([
        // The number is the first word of what a filter sees.
        instruction(LOAD, (0, 0), 0),
        instruction(JUMP_IF_EQUAL, (0, 1), u32::try_from(libc::SYS_clone3)?),
        instruction(RETURN, (0, 0), RETURN_ERROR | u32::try_from(libc::ENOSYS)?),
    ])
}

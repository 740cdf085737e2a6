//! Measures what holds against guests and VMM processes that do their worst, a file for each row.

mod forced_grant;
mod jail;
mod paging;
mod supervisor;
mod violations;

use anyhow::Result;

use self::violations::Violations;
use crate::row::Row;

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut violations = Violations::default();
    let mut rows = supervisor::measure(&mut violations)?;
    rows.extend(paging::measure()?);
    rows.extend(forced_grant::measure(&mut violations)?);
    rows.push(jail::measure()?);
    rows.push(violations.row());
    Ok(rows)
}

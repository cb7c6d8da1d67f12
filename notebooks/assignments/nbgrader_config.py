"""What nbgrader does with these assignments.

COURSE_SEED and DATASET are what a lecturer changes for a course.
"""

from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    DeduplicateIds,
    LimitOutput,
    LockCells,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
    SaveCells,
)

from fedecouple_lite.coursework.preprocessors import (
    JudgedExecute,
    MendCells,
    SayWhatIsWrong,
    SetCourse,
)

COURSE_SEED = 2026  # another seed: other data, other numbers, other right answers
DATASET = "digits"  # or "fashion_mnist": downloaded once, and slower

c = get_config()  # noqa: F821 - nbgrader puts it here

c.SetCourse.seed = COURSE_SEED
c.SetCourse.dataset = DATASET
c.CourseDirectory.course_id = "fedecouple"

# From a master to the students' version: nbgrader's own steps, behind ours.
c.GenerateAssignment.preprocessors = [
    SetCourse,
    LockCells,
    ClearSolutions,
    ClearOutput,
    CheckCellMetadata,
    ComputeChecksums,
    SaveCells,
    ClearHiddenTests,
    ClearMarkScheme,
    ComputeChecksums,
    CheckCellMetadata,
]

# A submission is mended before nbgrader puts its own cells back, and run with limits.
c.Autograde.sanitize_preprocessors = [
    ClearOutput,
    MendCells,
    DeduplicateIds,
    OverwriteKernelspec,
    OverwriteCells,
    CheckCellMetadata,
]
c.Autograde.autograde_preprocessors = [
    JudgedExecute,
    LimitOutput,
    SaveAutoGrades,
    SayWhatIsWrong,
    AssignLatePenalties,
    CheckCellMetadata,
]
c.JudgedExecute.timeout = 60  # seconds, for each cell
c.JudgedExecute.memory = 4096  # MiB, for each kernel
c.JudgedExecute.shutdown_kernel = "immediate"

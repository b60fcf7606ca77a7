from .datasets import Dataset as Dataset
from .datasets import Split as Split
from .datasets import dataset as dataset
from .datasets import load as load
from .evaluation import Evaluation as Evaluation
from .evaluation import Prediction as Prediction
from .evaluation import evaluate as evaluate
from .evaluation import predict as predict
from .journal import record as record
from .models import build as build
from .models import summary as summary
from .registry import ModelVersion as ModelVersion
from .registry import list_models as list_models
from .registry import publish as publish
from .registry import version as version
from .runs import list_runs as list_runs
from .runs import run as run
from .serving import serve as serve
from .training import EMA as EMA
from .training import Callback as Callback
from .training import EarlyStopping as EarlyStopping
from .training import Lookahead as Lookahead
from .training import Training as Training
from .training import find_lr as find_lr
from .training import fit as fit
from .training import list_trainings as list_trainings

__version__: str

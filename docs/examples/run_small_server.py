import asyncio
import sys

from small_server import SmallServer

from marple.agent.configuration import RunConfig
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.run import launch

config = RunConfig.of(case="hidden-goal/nano-10", investigator="llm")
outcome = asyncio.run(launch(config, investigator=LlmInvestigator(SmallServer(sys.argv[1]))))
print(outcome.status, outcome.path)
